package client_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"

	"smokeball.internal/tokenbroker/client"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

func TestTokenFileIsReadForEachCall(t *testing.T) {
	t.Parallel()
	a, r := accesstest.NewAuthority(t), newStandIn()
	own := newFiles(t, a, a.Issue("billing", nil))
	path := write(t, filepath.Join(t.TempDir(), "token"), []byte("first"))
	c := newClient(t, r.listen(t, serverTLS(a, nil, nil)), client.WithTLS(own.ca), client.WithJWTFile(path))
	for _, content := range []string{"first", "second\n", " third\r\n"} {
		write(t, path, []byte(content))
		wantToken(t, c)
		if got, want := r.last(t, "authorization"), "Bearer "+strings.TrimSpace(content); got != want {
			t.Errorf("the call had the authorization %q, want %q", got, want)
		}
	}

	calls := r.calls()
	write(t, path, []byte("Planted Planted"))
	if said := wantCode(t, c, codes.Unauthenticated); strings.Contains(said, "Planted") || !strings.Contains(said, path) {
		t.Errorf("of a file with more in it: %s", said)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if said := wantCode(t, c, codes.Unauthenticated); !strings.Contains(said, path) {
		t.Errorf("without the file: %s", said)
	}
	if r.calls() != calls {
		t.Error("a call without a token came")
	}
	write(t, path, []byte("fourth"))
	wantToken(t, c)
}

func TestTokenInPlainTextOnThisMachine(t *testing.T) {
	t.Parallel()
	r := newStandIn()
	path := write(t, filepath.Join(t.TempDir(), "token"), []byte("first"))
	wantToken(t, newClient(t, r.listen(t, nil), client.WithInsecure(), client.WithJWTFile(path)))
	if got := r.last(t, "authorization"); got != "Bearer first" {
		t.Errorf("the call had the authorization %q", got)
	}
}

// Whatever the caller's own options make of the connection, the token does not go
// over one that is not encrypted.
func TestTokenIsNotSentInPlainText(t *testing.T) {
	t.Parallel()
	r := newStandIn()
	address := r.listen(t, nil)
	path := write(t, filepath.Join(t.TempDir(), "token"), []byte("Planted"))
	plain := client.WithDialOptions(grpc.WithTransportCredentials(insecure.NewCredentials()))
	if c, err := client.New(t.Context(), address, client.WithJWTFile(path), plain); err == nil {
		t.Error("New has no error")
		_ = c.Close()
	}
	c := newClient(t, address, client.WithInsecure(), client.WithJWTFile(path), plain)
	if said := wantCode(t, c, codes.Unauthenticated); strings.Contains(said, "Planted") {
		t.Errorf("%q tells the token", said)
	}
	if r.calls() > 0 {
		t.Error("the call came")
	}
}
