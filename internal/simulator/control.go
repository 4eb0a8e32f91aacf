package simulator

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
)

const (
	maxControlBody = 64 << 10
	maxSecrets     = 2
	maxLifetime    = 24 * 60 * 60 // seconds
)

// clientView is a client as the control endpoint shows it. Secrets are counted, never shown.
type clientView struct {
	ID            string   `json:"client_id"`
	Endpoint      string   `json:"endpoint"`
	Scopes        []string `json:"scopes"`
	ExpiresIn     int64    `json:"expires_in"` // seconds
	ActiveSecrets int      `json:"active_secrets"`
	Requests      int      `json:"requests"`
	Bought        int      `json:"bought"`
}

// clientSettings is what may be changed about a client.
type clientSettings struct {
	Secrets   []string `json:"secrets"`
	Scopes    []string `json:"scopes"`
	ExpiresIn int64    `json:"expires_in"` // seconds
}

// routeControl registers the control endpoint, for a person with curl. It serves loopback without authentication, so it
// refuses whatever a browser sends for a web page: those requests carry an Origin header, curl's do not.
func (s *Simulator) routeControl() {
	handle := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if len(r.Header.Values("Origin")) > 0 {
				refuse(w, http.StatusForbidden, errors.New("requests from web pages are refused: Origin header present"))
				return
			}
			if err := h(w, r); err != nil {
				refuse(w, statusOf(err), err)
			}
		})
	}
	handle("GET /control", s.showState)
	handle("PUT /control/faults/{client_id}", putFault(s.SetFault))
	handle("PUT /control/api-faults/{client_id}", putFault(s.SetAPIFault))
	handle("PUT /control/clients/{client_id}", s.putClient)
	handle("DELETE /control/faults/{client_id}", done(func(r *http.Request) { s.ClearFault(r.PathValue("client_id")) }))
	handle("DELETE /control/api-faults/{client_id}", done(func(r *http.Request) { s.ClearAPIFault(r.PathValue("client_id")) }))
	handle("DELETE /control/tokens/{client_id}", done(func(r *http.Request) { s.Revoke(r.PathValue("client_id")) }))
	handle("DELETE /control/faults", done(func(*http.Request) { s.ClearFaults() }))
	handle("POST /control/reset", done(func(*http.Request) { s.Reset() }))
}

func done(act func(*http.Request)) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		act(r)
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

func (s *Simulator) showState(w http.ResponseWriter, _ *http.Request) error {
	state := struct {
		Clients   []clientView     `json:"clients"`
		Faults    map[string]Fault `json:"faults"`     // with the times they have left
		APIFaults map[string]Fault `json:"api_faults"` // the same
	}{Clients: []clientView{}}
	s.mu.Lock()
	for _, id := range slices.Sorted(maps.Keys(s.accounts)) {
		if a := s.accounts[id]; a.client != nil {
			state.Clients = append(state.Clients, clientView{
				ID: id, Endpoint: a.client.Endpoint, Scopes: append([]string{}, a.client.Scopes...),
				ExpiresIn: a.client.lifetime(), ActiveSecrets: len(a.client.Secrets),
				Requests: a.requests, Bought: a.bought,
			})
		}
	}
	state.Faults = maps.Clone(s.faults)
	state.APIFaults = maps.Clone(s.apiFaults)
	s.mu.Unlock()

	body, err := json.MarshalIndent(state, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding the state: %w", err)
	}
	answer(w, http.StatusOK, jsonType, string(body)+"\n")
	return nil
}

func putFault(set func(clientID string, f Fault) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var f Fault
		body, err := readControl(w, r)
		if err != nil {
			return err
		}
		if err := decodeStrict(body, &f); err != nil {
			return err
		}
		if err := set(r.PathValue("client_id"), f); err != nil {
			return err
		}
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
}

// putClient changes the settings the body names; the others, the counters and the fault stay as they are.
func (s *Simulator) putClient(w http.ResponseWriter, r *http.Request) error {
	body, err := readControl(w, r)
	if err != nil {
		return err
	}
	id := r.PathValue("client_id")
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.accounts[id]
	if a == nil || a.client == nil {
		return fmt.Errorf("client_id: %w: %q", ErrUnknownClient, id)
	}
	c := *a.client
	// Decoding reuses what it finds, so it must not find the slices of the client in force.
	settings := clientSettings{slices.Clone(c.Secrets), slices.Clone(c.Scopes), c.lifetime()}
	if err := decodeStrict(body, &settings); err != nil {
		return err
	}
	if err := settings.validate(); err != nil {
		return err
	}
	c.Secrets, c.Scopes = settings.Secrets, settings.Scopes
	c.ExpiresIn = time.Duration(settings.ExpiresIn) * time.Second
	s.setClient(c)
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (c clientSettings) validate() error {
	if len(c.Secrets) == 0 || len(c.Secrets) > maxSecrets || slices.Contains(c.Secrets, "") {
		return fmt.Errorf("secrets: must be one to %d, none of them empty", maxSecrets)
	}
	for _, scope := range c.Scopes {
		if scope == "" || strings.ContainsFunc(scope, unicode.IsSpace) {
			return errors.New("scopes: must be names without spaces")
		}
	}
	if c.ExpiresIn < 1 || c.ExpiresIn > maxLifetime {
		return fmt.Errorf("expires_in: must be from 1 to %d seconds", maxLifetime)
	}
	return nil
}

func readControl(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxControlBody))
	if err != nil {
		return nil, fmt.Errorf("reading the body: %w", err)
	}
	return body, nil
}

// decodeStrict reads exactly one JSON value without unknown fields. Its errors name the field and never quote a text,
// which might be a secret.
func decodeStrict(data []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(into)
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &wrongType):
		name := wrongType.Field[strings.LastIndex(wrongType.Field, ".")+1:]
		return fmt.Errorf("%s: must not be of type %s", cmp.Or(name, "body"), wrongType.Value)
	case errors.Is(err, io.EOF):
		return errors.New("body: must be a JSON object, is empty")
	case err != nil:
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("body: must be one JSON object and nothing after it")
	}
	return nil
}

func statusOf(err error) int {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, ErrUnknownClient):
		return http.StatusNotFound
	case errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}

func refuse(w http.ResponseWriter, status int, reason error) {
	body, err := json.Marshal(map[string]string{"error": reason.Error()})
	if err != nil {
		body = []byte(`{"error":"refused"}`)
	}
	answer(w, status, jsonType, string(body)+"\n")
}
