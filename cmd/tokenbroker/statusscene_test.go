package main_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/redisstore/redistest"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/simulator"
	"smokeball.internal/tokenbroker/internal/tenant"
	"smokeball.internal/tokenbroker/internal/token"
)

// statusScene is a fleet whose status page has something of everything on it.
type statusScene struct {
	t      testing.TB
	redis  *redistest.Server
	issuer *issuer
	store  *redisstore.Store
	keyset string
	*process
}

var (
	firstNames  = []string{"abbott", "adler", "baxter", "bellamy", "birch", "calder", "carver", "castle", "dalton", "draper", "ellison", "falk", "fenwick", "garner", "hale", "harlow", "ives", "keller", "langley", "marsh", "norris", "ogden", "pell", "quill", "rhodes", "sawyer", "thorne", "usher", "vance", "whitlock", "yates", "zeller"}
	secondNames = []string{"and-sons", "burke", "cole", "family-law", "gray", "holt", "lang", "legal", "mercer", "partners", "pike", "reed", "shaw", "stone", "voss", "wolfe"}
)

// firm returns the nth of any number of tenants, whose ids come in another order.
func firm(n int) tenant.Tenant {
	first, second := firstNames[n%len(firstNames)], secondNames[n/len(firstNames)%len(secondNames)]
	id := first + "-" + second
	if more := n / len(firstNames) / len(secondNames); more > 0 {
		id += fmt.Sprintf("-%d", more+1)
	}
	region := tenant.Regions()[n%3]
	return tenant.Tenant{
		ID: id, DisplayName: strings.ReplaceAll(title(id), " And ", " & "), Region: region, Environment: tenant.Production, ClientID: "client-" + id,
		Secret: tenant.Secret{Value: secret.New("secret-of-" + id)}, APIKey: secret.New("api-key-of-" + id), Disabled: n == 3,
	}
}

func title(id string) string {
	name := []byte(id)
	for i := range name {
		switch {
		case name[i] == '-':
			name[i] = ' '
		case name[i] >= 'a' && (i == 0 || name[i-1] == ' '):
			name[i] -= 'a' - 'A'
		}
	}
	return string(name)
}

// newStatusScene registers tenants, makes up a day for some of them, starts two
// replicas, and has four tenants get into trouble.
func newStatusScene(t testing.TB, tenants int) *statusScene {
	t.Helper()
	s := &statusScene{t: t, redis: redistest.Start(t, "--appendonly", "yes"), issuer: startIssuer(t), keyset: keysetFile(t)}
	keyset, err := seal.Load(t.Context(), s.keyset)
	if err != nil {
		t.Fatal(err)
	}
	s.store, err = redisstore.Open(redisstore.Config{URL: s.redis.URL(), Prefix: "tokenbroker:", Keyset: keyset, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.store.Close() })
	begun := time.Now()
	s.register(tenants)
	t.Logf("%d tenants registered in %v", tenants, time.Since(begun).Round(time.Millisecond))
	draw := rand.New(rand.NewPCG(1, 2))
	shown, _, err := s.store.ListTenants(t.Context(), "", 50)
	if err != nil {
		t.Fatal(err)
	}
	for n, each := range shown {
		if n%9 != 7 && !each.Disabled {
			s.live(each, draw)
		}
	}
	args := serveArgs(s.redis.URL(), s.keyset, s.issuer, "--log-level=info")
	s.process = start(t, args...).ready()
	start(t, args...).ready()
	s.silentReplica(`{"id": "gone", "name": "tokenbroker-7d9c5b8f4-x2k9q", "addr": "10.0.3.17:9090", "version": "v1.4.1", "since": "2026-11-20T08:00:00Z"}`)
	s.refused(shown[2])
	s.fails(shown[5], simulator.Fault{Kind: simulator.KindStatus, Status: http.StatusServiceUnavailable})
	s.fails(shown[6], simulator.Fault{Kind: simulator.KindStatus, Status: http.StatusTooManyRequests, RetryAfter: "240"})
	s.refreshFails(shown[8])
	return s
}

// register registers tenants.
func (s *statusScene) register(count int) {
	s.t.Helper()
	const writers = 16
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			for n := w; n < count; n += writers {
				if _, err := s.store.CreateTenant(context.Background(), firm(n)); err != nil {
					s.t.Errorf("%s: %v", firm(n).ID, err)
					return
				}
			}
		})
	}
	writing.Wait()
	if s.t.Failed() {
		s.t.FailNow()
	}
}

// key returns what the tokens of a tenant are kept under.
func (s *statusScene) key(t *tenant.Tenant) token.Key {
	s.t.Helper()
	id, err := s.store.SecretID(t.Secret.Value)
	if err != nil {
		s.t.Fatal(err)
	}
	return token.Credential{Endpoint: s.issuer.url + "/" + endpoint(t) + "/oauth2/token", ClientID: t.ClientID, SecretID: id}.Key()
}

// endpoint returns the tenant's with the simulated issuer.
func endpoint(t *tenant.Tenant) string { return string(t.Region) + "/" + string(t.Environment) }

// live gives a tenant a token of some age, and a day of exchanges.
func (s *statusScene) live(t *tenant.Tenant, draw *rand.Rand) {
	s.t.Helper()
	k := s.key(t)
	text := secret.New("planted-token-of-" + t.ID)
	issued := time.Now().Add(-time.Duration(draw.IntN(44*60)) * time.Second)
	expires := issued.Add(time.Hour)
	bought := &token.Token{ID: token.ID(text), AccessToken: text, Issued: issued, Expires: expires, RefreshAt: token.RefreshPoint(issued, expires, draw.Float64())}
	if _, err := s.store.Save(s.t.Context(), k, bought); err != nil {
		s.t.Fatal(err)
	}
	now := time.Now().Unix() / 3600
	counts := map[string]any{}
	asleep := draw.IntN(3) == 0 // by night
	for ago := range int64(24) {
		if n := 1 + draw.IntN(5)/4; !asleep || ago < 9 || ago > 17 {
			counts[fmt.Sprintf("%d.ok", now-ago)] = n
		}
		if draw.IntN(60) == 0 {
			counts[fmt.Sprintf("%d.failed", now-ago)] = 1 + draw.IntN(3)
		}
	}
	if err := s.redis.Client().HSet(s.t.Context(), "tokenbroker:exchanges:{"+k.Digest()+"}", counts).Err(); err != nil {
		s.t.Fatal(err)
	}
}

// forget takes a tenant's token away.
func (s *statusScene) forget(t *tenant.Tenant) {
	s.t.Helper()
	if err := s.redis.Client().Del(s.t.Context(), "tokenbroker:token:{"+s.key(t).Digest()+"}").Err(); err != nil {
		s.t.Fatal(err)
	}
}

// refused has the issuer refuse a tenant, of which it has never heard.
func (s *statusScene) refused(t *tenant.Tenant) {
	s.t.Helper()
	s.forget(t)
	if _, err := get(s.t.Context(), s.connect(), t.ID); err == nil {
		s.t.Fatalf("%s is not refused", t.ID)
	}
}

// known has the issuer know a tenant.
func (s *statusScene) known(t *tenant.Tenant) {
	s.issuer.SetClient(simulator.Client{Endpoint: endpoint(t), ID: t.ClientID, Secrets: []string{t.Secret.Value.Reveal()}})
}

// fails has the issuer fail when a tenant's token is asked for.
func (s *statusScene) fails(t *tenant.Tenant, fault simulator.Fault) {
	s.t.Helper()
	s.forget(t)
	s.known(t)
	if err := s.issuer.SetFault(t.ClientID, fault); err != nil {
		s.t.Fatal(err)
	}
	if _, err := get(s.t.Context(), s.connect(), t.ID); err == nil {
		s.t.Fatalf("%s has a token", t.ID)
	}
}

// refreshFails has the issuer fail when a tenant's token is to be replaced.
func (s *statusScene) refreshFails(t *tenant.Tenant) {
	s.t.Helper()
	s.known(t)
	held, err := get(s.t.Context(), s.connect(), t.ID)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.issuer.SetFault(t.ClientID, simulator.Fault{Kind: simulator.KindReset}); err != nil {
		s.t.Fatal(err)
	}
	_, err = pb.NewTokenServiceClient(s.connect()).RefreshToken(s.t.Context(), &pb.RefreshTokenRequest{Tenant: "tenants/" + t.ID, RejectedTokenId: held.GetTokenId()})
	if err == nil {
		s.t.Fatalf("%s has another token", t.ID)
	}
}

// silentReplica has one be in the list that is not there.
func (s *statusScene) silentReplica(says string) {
	s.t.Helper()
	err := s.redis.Client().ZAdd(s.t.Context(), "tokenbroker:{tenants}:replicas", redis.Z{Score: float64(time.Now().Add(-4 * time.Minute).UnixMilli()), Member: says}).Err()
	if err != nil {
		s.t.Fatal(err)
	}
}

// html returns the page as scripts get it that ask for it, and how long that took.
func (s *statusScene) html(path string) (string, time.Duration) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, "http://"+s.ops+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html")
	begun := time.Now()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: status %d, error %v: %s", path, resp.StatusCode, err, body)
	}
	return string(body), time.Since(begun)
}
