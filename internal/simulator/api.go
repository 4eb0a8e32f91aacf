package simulator

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// The API is that of docs.smokeball.com ("Making requests", "Errors") behind an AWS API Gateway with a Cognito authorizer,
// as far as a caller's handling of tokens needs it: the lists of matters and contacts, a matter and a contact.
//
// A request is refused in this order, each time as the one does that would refuse it there:
//
//   - by the gateway, 401 {"message":"Unauthorized"}: without a bearer token, with one that was not sold, that was sold to
//     a client of another region or environment, or that is revoked (Revoke); and {"message":"The incoming token has
//     expired"} from the second on that the token's exp claim names
//   - by the gateway, 403 {"message":"Forbidden"}: without the client's x-api-key
//   - by Smokeball, 403 and problem details (RFC 7807): without the client's account in the path, or without the scope, which
//     is that of the resource, such as matters/read. Smokeball documents 403 for both on one page and 401 on another; the
//     simulator takes 403, and an API fault of status 401 is the other.
//   - by Smokeball, 404 and problem details: no such resource, or an account in the path where the client has none
//   - by Smokeball, 400 and problem details: an offset or a limit that is not a number within its bounds
//
// There are no rate limits, and nothing can be changed: other methods are answered 405.

// caller is who makes a request, or why there is no such caller.
type caller struct {
	client  *Client
	scopes  []string
	message string // the gateway's, with 401; empty: the client is there
}

// serveAPI answers an API request.
func (s *Simulator) serveAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Amzn-Requestid", newUUID())
	fault, c := s.receiveAPI(r)
	switch {
	case s.unanswered(w, r, fault):
	case fault.Kind == KindStatus && fault.Body == "":
		fault.Body = message(http.StatusText(fault.Status))
		answerInFront(w, fault)
	case fault.Kind.inFront():
		answerInFront(w, fault)
	case c.message != "":
		answerGateway(w, http.StatusUnauthorized, "UnauthorizedException", c.message)
	case c.client.APIKey != "" && r.Header.Get("X-Api-Key") != c.client.APIKey:
		answerGateway(w, http.StatusForbidden, "ForbiddenException", "Forbidden")
	default:
		answerResource(w, r, c)
	}
}

// receiveAPI says who makes the request, and takes the fault it meets.
func (s *Simulator) receiveAPI(r *http.Request) (Fault, caller) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || len(r.Header.Values("Authorization")) > 1 {
		token = ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sold, ok := s.sold[token]
	fault := takeFault(s.apiFaults, sold.clientID)
	if !ok {
		return fault, caller{message: "Unauthorized"}
	}
	client := s.accounts[sold.clientID].client // clients are never removed
	switch {
	case client.Endpoint != r.PathValue("region")+"/"+r.PathValue("environment"):
		return fault, caller{message: "Unauthorized"}
	case sold.expired(time.Now()):
		return fault, caller{message: "The incoming token has expired"}
	}
	return fault, caller{client: client, scopes: sold.scopes}
}

// answerResource answers a caller whom the gateway has let through.
func answerResource(w http.ResponseWriter, r *http.Request, c caller) {
	path := r.PathValue("path")
	base := "http://" + r.Host + "/" + c.client.Endpoint + APIPath
	if r.TLS != nil {
		base = "https" + strings.TrimPrefix(base, "http")
	}
	if account := c.client.AccountID; account != "" {
		rest, ok := strings.CutPrefix(path, account+"/")
		if !ok {
			answerProblem(w, r, http.StatusForbidden, "The path must begin with an account that this client has access to.", nil)
			return
		}
		path, base = rest, base+"/"+account
	}
	resource, id, one := strings.Cut(strings.TrimSuffix(path, "/"), "/")
	records, ok := firm(c.client.ID, base)[resource]
	if !ok {
		answerProblem(w, r, http.StatusNotFound, "There is no such resource.", nil)
		return
	}
	if !slices.Contains(c.scopes, resource+"/read") {
		answerProblem(w, r, http.StatusForbidden, "The access token lacks the scope "+resource+"/read.", nil)
		return
	}
	if !one {
		answerPage(w, r, base+"/"+resource, records)
		return
	}
	i := slices.IndexFunc(records, func(record record) bool { return record["id"] == id })
	if i < 0 {
		answerProblem(w, r, http.StatusNotFound, "There is no such resource.", nil)
		return
	}
	answerObject(w, http.StatusOK, "application/json; charset=utf-8", records[i])
}

// answerGateway writes an answer of API Gateway's own.
func answerGateway(w http.ResponseWriter, status int, errorType, text string) {
	w.Header().Set("X-Amzn-Errortype", errorType)
	answer(w, status, "application/json", message(text))
}

func message(text string) string { return `{"message":"` + text + `"}` }

// problem is RFC 7807's, with Smokeball's list of errors.
type problem struct {
	Type     string         `json:"type"`
	Title    string         `json:"title"`
	Status   int            `json:"status"`
	Detail   string         `json:"detail"`
	Instance string         `json:"instance"`
	Errors   []problemError `json:"errors,omitempty"`
}

type problemError struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func answerProblem(w http.ResponseWriter, r *http.Request, status int, detail string, errors []problemError) {
	sections := map[int]string{http.StatusBadRequest: "6.5.1", http.StatusForbidden: "6.5.3", http.StatusNotFound: "6.5.4"}
	answerObject(w, status, "application/problem+json", problem{
		Type:   "https://tools.ietf.org/html/rfc7231#section-" + sections[status],
		Title:  http.StatusText(status),
		Status: status, Detail: detail, Instance: "/" + r.PathValue("path"), Errors: errors,
	})
}

func answerObject(w http.ResponseWriter, status int, contentType string, object any) {
	body, err := json.Marshal(object)
	if err != nil {
		answerGateway(w, http.StatusInternalServerError, "InternalServerErrorException", "Internal server error")
		return
	}
	answer(w, status, contentType, string(body))
}
