package bench_test

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
	"smokeball.internal/tokenbroker/internal/simulator"
)

// tokenSize is how long access tokens are, about as long as Cognito's for a client.
const tokenSize = 1 << 10

// randomText returns text of this length, a multiple of 4.
func randomText(size int) string {
	b := make([]byte, size/4*3)
	_, _ = rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// client is what the issuer knows of the n-th tenant.
func (s *scene) client(n int) simulator.Client {
	return simulator.Client{
		Endpoint: "us/production", ID: "1example234567890123" + id(n), Secrets: []string{strings.Repeat("s", 44) + id(n)}, Scopes: []string{"matters/read"}, ExpiresIn: 24 * time.Hour,
	}
}

// storm is what a cold storm came to.
type storm struct {
	Tenants int `json:"tenants"`
	Rate    int `json:"exchanges_per_second"`
	Burst   int `json:"burst"`
	// Bought is how many tokens the issuer has sold, Asked how many requests it got.
	Bought int `json:"bought"`
	Asked  int `json:"asked"`
	// Busiest is how many exchanges there were in the busiest ten seconds, and Allowed how
	// many the limit allows in ten.
	Busiest int `json:"busiest_ten_seconds"`
	Allowed int `json:"allowed_in_ten_seconds"`
	// Retried counts answers that said to come back later.
	Retried int `json:"told_to_come_back"`
	// Warm is when each hundredth of the tenants was warm, in seconds from the first call.
	Warm []float64 `json:"warm_s"`
	// Took is when all were, and Arithmetic what it takes by the limit alone, in seconds.
	Took       float64 `json:"took_s"`
	Arithmetic float64 `json:"arithmetic_s"`
}

// coldStorm has all tenants asked for at once, none of which has a token, by callers
// who come back when they are told to.
func (s *scene) coldStorm(t *testing.T, z sizes) storm {
	t.Helper()
	s.fill(t, 0, z.storm, false)
	for n := range z.storm {
		s.issuer.SetClient(s.client(n))
	}
	asked := &moments{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.note(); s.issuer.ServeHTTP(w, r) }))
	defer server.Close()
	s.issuerURL = server.URL
	replica := s.replica(t, "storm", fmt.Sprintf("--exchange-rate=%d", z.stormRate))
	conns := make([]*grpc.ClientConn, 16)
	for i := range conns {
		conn, err := replica.user.dial(replica.api)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		conns[i] = conn
	}
	r := storm{Tenants: z.storm, Rate: z.stormRate, Burst: 2 * z.stormRate}
	var mu sync.Mutex
	var calling sync.WaitGroup
	var warm []float64
	begun := time.Now()
	for n := range z.storm {
		calling.Go(func() {
			retried, err := patiently(t.Context(), conns[n%len(conns)], id(n))
			mu.Lock()
			defer mu.Unlock()
			r.Retried += retried
			if err != nil {
				t.Errorf("%s: %v", id(n), err)
				return
			}
			warm = append(warm, time.Since(begun).Seconds())
		})
	}
	calling.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for part := 1; part <= 100; part++ {
		r.Warm = append(r.Warm, warm[max(1, len(warm)*part/100)-1])
	}
	r.Took, r.Arithmetic = slices.Max(warm), float64(r.Tenants-r.Burst)/float64(r.Rate)
	r.Bought, r.Asked = s.issuer.Bought(simulator.AllClients), s.issuer.Requests(simulator.AllClients)
	// On a machine that is too busy, an answer of the issuer may be too late, and is bought
	// again; one in a hundred are too many.
	if r.Bought < r.Tenants || r.Asked > r.Tenants+r.Tenants/100+1 {
		t.Errorf("%d tokens are bought with %d requests for %d tenants", r.Bought, r.Asked, r.Tenants)
	}
	r.Busiest, r.Allowed = asked.busiest(10*time.Second), r.Burst+10*r.Rate
	// Those that a busy machine holds up for a while come together with the next.
	if r.Busiest > r.Allowed*5/4 {
		t.Errorf("%d exchanges in ten seconds, of %d that are allowed", r.Busiest, r.Allowed)
	}
	return r
}

// moments notes when something happens.
type moments struct {
	mu sync.Mutex
	at []time.Time
}

func (m *moments) note() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.at = append(m.at, time.Now())
}

// busiest returns the largest number of moments within a span of time.
func (m *moments) busiest(within time.Duration) (most int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	slices.SortFunc(m.at, time.Time.Compare)
	from := 0
	for to := range m.at {
		for m.at[to].Sub(m.at[from]) >= within {
			from++
		}
		most = max(most, to-from+1)
	}
	return most
}

// patiently asks for a token until there is one, and comes back when it is told to.
func patiently(ctx context.Context, conn *grpc.ClientConn, tenant string) (retried int, err error) {
	for ; ; retried++ {
		_, err := pb.NewTokenServiceClient(conn).GetToken(ctx, &pb.GetTokenRequest{Tenant: "tenants/" + tenant})
		if err == nil || status.Code(err) != codes.Unavailable {
			return retried, err
		}
		later := time.Duration(0)
		for _, d := range status.Convert(err).Details() {
			if info, ok := d.(*errdetails.RetryInfo); ok {
				later = info.GetRetryDelay().AsDuration()
			}
		}
		if later == 0 {
			return retried, err
		}
		select {
		case <-time.After(later):
		case <-ctx.Done():
			return retried, ctx.Err()
		}
	}
}
