package access

import (
	"errors"
	"slices"
	"strings"
)

// methods is a set of methods of the API.
type methods uint16

const (
	getToken methods = 1 << iota
	refreshToken
	watchToken
	getTenant
	listTenants
	createTenant
	updateTenant
	deleteTenant
	rotateClientSecret
	checkTenant
)

// methodNames are the names of the methods, in the order of their bits.
var methodNames = [...]string{
	"GetToken", "RefreshToken", "WatchToken",
	"GetTenant", "ListTenants", "CreateTenant", "UpdateTenant", "DeleteTenant", "RotateClientSecret", "CheckTenant",
}

const (
	tokenMethods  = getToken | refreshToken | watchToken
	viewerMethods = getTenant | listTenants
	adminMethods  = viewerMethods | createTenant | updateTenant | deleteTenant | rotateClientSecret | checkTenant
)

// Methods returns the names of the methods that rules can give, such as
// "GetToken". Any other is denied.
func Methods() []string { return slices.Clone(methodNames[:]) }

// MethodNamed returns what Query.Method is for a full name of gRPC: "GetToken"
// for "/tokenbroker.v1.TokenService/GetToken", with or without the first slash. It
// is false for a name that is of no method of the API.
func MethodNamed(full string) (string, bool) {
	service, name, _ := strings.Cut(strings.TrimPrefix(full, "/"), "/")
	method := methodNamed(name)
	home := "tokenbroker.v1.TenantService"
	if method&tokenMethods != 0 {
		home = "tokenbroker.v1.TokenService"
	}
	return name, method != 0 && service == home
}

// methodNamed returns the set of the one method with this name; the empty set, if
// there is none.
func methodNamed(name string) methods {
	for i := range methodNames {
		if methodNames[i] == name {
			return 1 << i
		}
	}
	return 0
}

// role is a name for what a rule lets its principals do.
type role struct {
	name    string
	methods methods
	// may is for sentences: who has the role may … a tenant.
	may string
}

// roles are all there are. Only the first gives tokens: who administers tenants
// does not thereby read their tokens.
var roles = []role{
	{"token.reader", tokenMethods, "get, refresh and watch tokens of"},
	{"tenant.viewer", viewerMethods, "view"},
	{"tenant.admin", adminMethods, "administer"},
}

func parseRole(name string) (role, error) {
	for _, r := range roles {
		if r.name == name {
			return r, nil
		}
	}
	return role{}, errors.New("must be token.reader, tenant.viewer or tenant.admin")
}
