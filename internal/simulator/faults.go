package simulator

import (
	"errors"
	"fmt"
	"slices"
)

// ErrUnknownClient is wrapped by errors about a client identifier that no client has.
var ErrUnknownClient = errors.New("no such client")

// SetFault makes the client's next token requests meet the fault, in place of any other fault of that client. A client's
// own fault goes before the one for AllClients. It returns an error that begins with the name of the field at fault, in
// its JSON spelling, and one that wraps ErrUnknownClient where there is no such client.
func (s *Simulator) SetFault(clientID string, f Fault) error {
	return s.setFault(s.faults, clientID, f)
}

// SetAPIFault makes the client's next API requests meet the fault, as SetFault does with token requests. A request is
// that of the client whose token it carries; one without a token that was sold meets the fault for AllClients only. The
// kind must be one of KindStatus, KindWAF, KindRedirect, KindEmpty, KindGarbage, KindDelay, KindHang and KindReset.
// Without a Body, KindStatus answers with what API Gateway says: {"message":"Unauthorized"} for 401.
func (s *Simulator) SetAPIFault(clientID string, f Fault) error {
	if rule, ok := kinds[f.Kind]; ok && !rule.api {
		return fmt.Errorf("kind: %q is of the token endpoint only", f.Kind)
	}
	return s.setFault(s.apiFaults, clientID, f)
}

func (s *Simulator) setFault(faults map[string]Fault, clientID string, f Fault) error {
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
	faults[clientID] = f
	return nil
}

// ClearFault removes the fault of token requests set for the client, or the one set for AllClients and no other. Requests
// a fault already holds are not let go; see Close.
func (s *Simulator) ClearFault(clientID string) { s.clearFault(s.faults, clientID) }

// ClearAPIFault removes the fault of API requests in the same way.
func (s *Simulator) ClearAPIFault(clientID string) { s.clearFault(s.apiFaults, clientID) }

func (s *Simulator) clearFault(faults map[string]Fault, clientID string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(faults, clientID)
}

// ClearFaults removes all faults, of token requests and of API requests.
func (s *Simulator) ClearFaults() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.faults)
	clear(s.apiFaults)
}

// takeFault returns the fault a request of the client meets, if any, and uses up one of its times.
func takeFault(faults map[string]Fault, clientID string) Fault {
	for _, key := range []string{clientID, AllClients} {
		f, ok := faults[key]
		if !ok {
			continue
		}
		switch f.Times {
		case 0:
		case 1:
			delete(faults, key)
		default:
			left := f
			left.Times--
			faults[key] = left
		}
		return f
	}
	return Fault{}
}
