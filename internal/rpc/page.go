package rpc

import (
	"encoding/base64"
	"strings"
)

// A page token names the last tenant of its page, so that the next page begins
// behind it whatever is created or deleted in between (https://google.aip.dev/158).
// It is opaque to callers, and has a version for the day when it holds more.
const pageTokenVersion = "1/"

// pageToken returns the token of the page behind the tenant with the id last;
// empty: there is none.
func pageToken(last string) string {
	if last == "" {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(pageTokenVersion + last))
}

// readPageToken returns the id that the page begins behind; empty for the first.
func readPageToken(s string) (after string, err error) {
	if s == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	after, ok := strings.CutPrefix(string(raw), pageTokenVersion)
	if err != nil || !ok || after == "" || strings.ContainsFunc(after, notOfID) {
		return "", badRequest("page_token", "must be the next_page_token of an earlier answer")
	}
	return after, nil
}

func notOfID(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
