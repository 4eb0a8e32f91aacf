package simulator

import (
	"errors"
	"fmt"
	"slices"
)

// ErrUnknownClient is wrapped by errors about a client identifier that no client has.
var ErrUnknownClient = errors.New("no such client")

// SetFault makes the client's next requests meet the fault, in place of any other fault of that client. A client's own
// fault goes before the one for AllClients. It returns an error that begins with the name of the field at fault, in its
// JSON spelling, and one that wraps ErrUnknownClient where there is no such client.
func (s *Simulator) SetFault(clientID string, f Fault) error {
	if err := f.validate(); err != nil {
		return err
	}
	f.ExpiresIn = slices.Clone(f.ExpiresIn)
	s.mu.Lock()
	defer s.mu.Unlock()
	if clientID != AllClients {
		if a := s.accounts[clientID]; a == nil || a.client == nil {
			return fmt.Errorf("client_id: %w: %q", ErrUnknownClient, clientID)
		}
	}
	s.faults[clientID] = f
	return nil
}

// ClearFault removes the fault set for the client, or the one set for AllClients and no other. Requests a fault already
// holds are not let go; see Close.
func (s *Simulator) ClearFault(clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.faults, clientID)
}

// ClearFaults removes all faults.
func (s *Simulator) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.faults)
}

// takeFault returns the fault a request of the client meets, if any, and uses up one of its times.
func (s *Simulator) takeFault(clientID string) Fault {
	for _, key := range []string{clientID, AllClients} {
		f, ok := s.faults[key]
		if !ok {
			continue
		}
		switch f.Times {
		case 0:
		case 1:
			delete(s.faults, key)
		default:
			left := f
			left.Times--
			s.faults[key] = left
		}
		return f
	}
	return Fault{}
}
