// Package simulator is Smokeball's OAuth 2.0 token endpoint without Smokeball: an http.Handler that answers the
// client credentials grant (RFC 6749 section 4.4) the way AWS Cognito behind CloudFront does, counts the tokens it
// sells, and can be told to fail in every way that has been seen in the field. Beside it is a little of Smokeball's API,
// for the tokens to be of use; see api.go for what of it.
//
// Where Smokeball's page ("Client Credentials Grant", docs.smokeball.com), Cognito's page ("The token issuer
// endpoint") and RFC 6749 ask different things of a request, the simulator insists on all of them. The exception is the
// Basic header, where they cannot all be had: it takes client_id:client_secret as it is, like Smokeball and Cognito.
// Its tokens look like Cognito's and are signed by nobody.
//
// A person plays with it through the control endpoint, in JSON, on the same address:
//
//	curl $SIM/control
//	curl -X PUT $SIM/control/faults/acme -d '{"kind":"status","status":429,"retry_after":"5","times":3}'
//	curl -X PUT "$SIM/control/faults/*" -d '{"kind":"delay","delay":"2s"}'
//	curl -X DELETE $SIM/control/faults/acme
//	curl -X DELETE $SIM/control/faults
//	curl -X PUT $SIM/control/clients/acme -d '{"secrets":["new","old"],"scopes":["matters/read"],"expires_in":300}'
//	curl -X PUT $SIM/control/api-faults/acme -d '{"kind":"status","status":401}'
//	curl -X PUT $SIM/control/api-faults/acme -d '{"kind":"redirect","location":"https://files.example/1","times":1}'
//	curl -X DELETE $SIM/control/api-faults/acme
//	curl -X DELETE $SIM/control/tokens/acme
//	curl -X POST $SIM/control/reset
//
// A fault is for the token endpoint, an API fault for the API. DELETE of tokens revokes those that were sold, so that
// the API answers 401 to them before they expire. Cognito has nothing like it for this grant, but Smokeball answers so
// now and then.
//
// It shows neither secrets nor tokens, and refuses requests that come from web pages. It has no other protection, so
// serve it on loopback only.
package simulator

import (
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// AllClients takes the place of a client identifier and means every client: the fault that applies to all, the sum of
// all counters.
const AllClients = "*"

// Where the token endpoint and the API are, below a region and environment such as "/us/production".
const (
	TokenPath = "/oauth2/token"
	APIPath   = "/api"
)

const (
	defaultLifetime = time.Hour

	// Requests under identifiers that belong to no client are counted too, but anyone can invent identifiers: past
	// these bounds such requests are counted under the empty identifier.
	maxAccounts   = 10_000
	maxIdentifier = 256
)

// Client is one app client known to the simulated issuer.
type Client struct {
	// Endpoint is the region and environment the client exists in, such as "us/production". Everywhere else its
	// credentials are refused. A client with an empty Endpoint exists nowhere.
	Endpoint string
	// ID is the client identifier. Identifiers are unique across endpoints, as Cognito's are.
	ID string
	// Secrets are the active secrets, any of which authenticates the client. Cognito allows two, so that a secret can
	// be rotated without an outage (AddUserPoolClientSecret); without any, nobody can authenticate.
	Secrets []string
	// Scopes are the scopes the client may ask for. A request without a scope is granted all of them.
	Scopes []string
	// AccountID is what the paths of the client's API requests must begin with, as those of a grant for several accounts
	// do. Empty: they must begin with the resource, as those of a single firm's private app do.
	AccountID string
	// APIKey is what the x-api-key header of the client's API requests must say. Empty: it is not looked at.
	APIKey string
	// ExpiresIn is the lifetime of the client's tokens, rounded up to whole seconds. Zero or less means one hour,
	// Smokeball's default. Cognito's bounds (five minutes to one day) are not enforced, because tests want less.
	ExpiresIn time.Duration
}

// lifetime is what a token response says in expires_in, in seconds.
func (c *Client) lifetime() int64 {
	if c.ExpiresIn <= 0 {
		return int64(defaultLifetime / time.Second)
	}
	seconds := int64(c.ExpiresIn / time.Second)
	if c.ExpiresIn%time.Second != 0 {
		seconds++
	}
	return seconds
}

// account is what the issuer remembers under one client identifier, whether or not a client has it.
type account struct {
	client   *Client // nil: nobody by that name
	requests int
	bought   int
	last     map[string]string // scope → the token sold last, for KindSameToken
}

// Simulator is the simulated issuer, with all its endpoints and its control endpoint. Use New to make one. Its methods
// are safe for concurrent use, and it has no goroutines of its own.
//
// Inside a testing/synctest bubble, create the Simulator in the bubble and call ServeHTTP directly: it waits only on
// timers, the request's context and Close.
type Simulator struct {
	mux    *http.ServeMux
	keyID  string
	closed chan struct{}
	once   sync.Once

	mu        sync.Mutex
	accounts  map[string]*account
	faults    map[string]Fault // :: client ID → what its token requests meet
	apiFaults map[string]Fault // :: client ID → what its API requests meet
	sold      ledger
}

// New returns an issuer without clients or faults. It starts nothing; serve it with an http.Server or call ServeHTTP.
func New() *Simulator {
	s := &Simulator{
		mux:       http.NewServeMux(),
		keyID:     randomText(32),
		closed:    make(chan struct{}),
		accounts:  make(map[string]*account),
		faults:    make(map[string]Fault),
		apiFaults: make(map[string]Fault),
		sold:      make(ledger),
	}
	s.mux.HandleFunc("POST /{region}/{environment}"+TokenPath, s.serveToken)
	s.mux.HandleFunc("GET /{region}/{environment}"+APIPath+"/{path...}", s.serveAPI)
	s.routeControl()
	return s
}

// ServeHTTP serves the token endpoints, POST /{region}/{environment}/oauth2/token, the API, GET below
// /{region}/{environment}/api, and the control endpoint below /control. Any other method there is answered 405, any
// other path 404.
func (s *Simulator) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.mux.ServeHTTP(w, r) }

// Close lets go of every request held by a fault: hanging ones lose their connection, delayed ones are answered at
// once. Call it before closing an httptest.Server, which waits for its requests. Calling it again does nothing.
func (s *Simulator) Close() { s.once.Do(func() { close(s.closed) }) }

// SetClient adds a client, or replaces the one with the same ID and keeps its counters and its faults. Tokens already
// sold are not touched: Cognito cannot revoke them (but see Revoke).
func (s *Simulator) SetClient(c Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.setClient(c)
}

func (s *Simulator) setClient(c Client) {
	c.Endpoint = strings.Trim(c.Endpoint, "/")
	c.Secrets = slices.Clone(c.Secrets)
	c.Scopes = slices.Clone(c.Scopes)
	a := s.accounts[c.ID]
	if a == nil {
		a = &account{}
		s.accounts[c.ID] = a
	}
	a.client = &c
}

// Bought returns how many tokens the client has been sold: every exchange the issuer accepted, even if the answer was
// then delayed, cut short or never delivered, since Cognito bills the exchange and not the delivery. Answers that never
// came from the issuer (see Kind) are not counted. AllClients gives the sum.
func (s *Simulator) Bought(clientID string) int {
	return s.sum(clientID, func(a *account) int { return a.bought })
}

// Requests returns how many token requests (POST) were made in the client's name, whatever the answer was. The name is
// that of the Authorization header, or without one the client_id of the body; it need not belong to a known client.
// AllClients gives the sum, including requests in nobody's name.
func (s *Simulator) Requests(clientID string) int {
	return s.sum(clientID, func(a *account) int { return a.requests })
}

func (s *Simulator) sum(clientID string, count func(*account) int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if clientID != AllClients {
		if a := s.accounts[clientID]; a != nil {
			return count(a)
		}
		return 0
	}
	total := 0
	for _, a := range s.accounts {
		total += count(a)
	}
	return total
}

// Reset sets all counters to zero, removes all faults and forgets which token was sold last, for KindSameToken. The
// clients stay, and their tokens are good.
func (s *Simulator) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.faults)
	clear(s.apiFaults)
	for id, a := range s.accounts {
		if a.client == nil {
			delete(s.accounts, id)
			continue
		}
		s.accounts[id] = &account{client: a.client}
	}
}
