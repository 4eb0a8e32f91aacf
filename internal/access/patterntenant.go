package access

import (
	"errors"
	"fmt"
	"strings"
)

// maxID is the length of the longest tenant id, which is a DNS label.
const maxID = 63

// ValidID says whether id can be that of a tenant, by the rules of the API.
func ValidID(id string) bool {
	return likeID(id) && strings.IndexByte(id, '*') < 0
}

// likeID says whether s would be a tenant id if its stars were letters.
func likeID(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || c == '*' || i > 0 && ('0' <= c && c <= '9' || c == '-')) {
			return false
		}
	}
	return s != "" && len(s) <= maxID && s[len(s)-1] != '-'
}

// parseTenant reads a tenant of the access file: an id, or a pattern of ids.
func parseTenant(text string) (pattern, error) {
	switch {
	case strings.HasPrefix(text, "tenants/"):
		return pattern{}, errors.New("must be written without tenants/")
	case strings.Contains(text, "**"):
		return pattern{}, errDeep
	case !likeID(text):
		return pattern{}, fmt.Errorf("must be 1 to %d lower-case letters, digits, hyphens and *, start with a letter or * and not end with a hyphen", maxID)
	}
	return newPattern(text, "", ""), nil
}

// ValidScope says whether s is one scope: a scope-token of RFC 6749, section 3.3,
// of the length that the API allows.
func ValidScope(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return s != "" && len(s) <= 256
}

// parseScope reads a scope of the access file, or a pattern of scopes. A * alone
// would read like no bound, and yet stand for scopes without a slash only.
func parseScope(text string) (pattern, error) {
	switch {
	case text == "*":
		return pattern{}, errors.New("is no bound: leave scopes out, or write */* for every scope that has one slash")
	case strings.Contains(text, "**"):
		return pattern{}, errDeep
	case !ValidScope(text):
		return pattern{}, errors.New("must be 1 to 256 visible ASCII characters without space, quote or backslash")
	}
	return newPattern(text, "", "/"), nil
}
