package access_test

import (
	"crypto/x509"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"smokeball.internal/tokenbroker/internal/access"
	"smokeball.internal/tokenbroker/internal/access/accesstest"
)

func TestTheFirstEndOfWhatIsInForceIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const year = 365 * 24 * time.Hour // That authorities are valid.
		now, c := time.Now(), &access.Certificates{}
		want := func(when string, server, authorities time.Time) {
			t.Helper()
			gotServer, gotAuthorities := c.Ends()
			if !gotServer.Equal(server) || !gotAuthorities.Equal(authorities) {
				t.Errorf("%s: %v and %v, want %v and %v", when, gotServer, gotAuthorities, server, authorities)
			}
		}
		want("without certificates", time.Time{}, time.Time{})
		authority := accesstest.NewAuthority(t)
		time.Sleep(time.Hour)
		later := accesstest.NewAuthority(t)

		serve := func(ends time.Time, chain []byte) {
			t.Helper()
			own := later.Issue("broker", func(template *x509.Certificate) { template.NotAfter = ends })
			if err := c.SetServer(slices.Concat(own.PEM, chain), own.KeyPEM); err != nil {
				t.Fatal(err)
			}
		}
		trust := func(bundle []byte) {
			t.Helper()
			if err := c.SetAuthorities(bundle); err != nil {
				t.Fatal(err)
			}
		}
		serve(now.Add(2*time.Hour), nil)
		want("the server's", now.Add(2*time.Hour), time.Time{})
		trust(later.PEM())
		want("with an authority", now.Add(2*time.Hour), now.Add(year+time.Hour))
		trust(later.PEM(authority))
		want("with one that ends sooner", now.Add(2*time.Hour), now.Add(year))
		trust(authority.PEM(later))
		want("in the other order", now.Add(2*time.Hour), now.Add(year))
		serve(now.Add(2*year), later.PEM())
		want("a chain that ends sooner", now.Add(year+time.Hour), now.Add(year))
		if c.SetServer([]byte("none"), nil) == nil || c.SetAuthorities([]byte("none")) == nil {
			t.Error("set what is none")
		}
		want("what is refused changes nothing", now.Add(year+time.Hour), now.Add(year))
	})
}
