package client_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

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

// The broker refuses the token, for the health of a replica as for everything else: the
// caller hears that, and not that there is no replica. With another token calls go at once.
func TestTokenThatTheBrokerRefuses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		n, r := &network{}, newStandIn()
		refuse := func(ctx context.Context) error {
			header, _ := metadata.FromIncomingContext(ctx)
			if !slices.Equal(header.Get("authorization"), []string{"Bearer good"}) {
				return status.Error(codes.Unauthenticated, "refused")
			}
			return nil
		}
		r.answers(refuse)
		n.join(t, "localhost:1", r, grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
			if err := refuse(stream.Context()); err != nil {
				return err
			}
			return handler(srv, stream)
		}))
		path := write(t, filepath.Join(t.TempDir(), "token"), []byte("expired"))
		c := n.client(t, client.WithJWTFile(path))
		for range 3 {
			began := time.Now()
			if said := wantCode(t, c, codes.Unauthenticated); !strings.Contains(said, "refused") || time.Since(began) > 0 {
				t.Errorf("after %v: %s", time.Since(began), said)
			}
			time.Sleep(10 * time.Minute)
		}
		write(t, path, []byte("good"))
		began := time.Now()
		wantToken(t, c)
		if took := time.Since(began); took > 0 || n.dialed() != 1 {
			t.Errorf("with another token it took %v, and %d connections", took, n.dialed())
		}
	})
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
