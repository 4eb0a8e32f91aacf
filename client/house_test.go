package client_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"google.golang.org/genproto/googleapis/rpc/errdetails"

	"smokeball.internal/tokenbroker/client"
	pb "smokeball.internal/tokenbroker/gen/tokenbroker/v1"
)

// fake is a broker that behaves as token_service.proto says, with one token for
// all tenants, which it replaces at 75 % of its life.
type fake struct {
	pb.UnimplementedTokenServiceServer
	life time.Duration // of the tokens it buys

	mu       sync.Mutex
	changed  chan struct{} // closed when anything below has changed
	number   int           // of the token, from 1
	issued   time.Time
	away     bool                // the issuer is: no new tokens
	skew     time.Duration       // how wrong its wall clock is
	mute     bool                // streams are open and bring nothing
	hollow   bool                // streams bring heartbeats only
	getErr   error               // what all methods answer
	watchErr error               // what WatchToken answers; io.EOF: it ends
	refresh  func() error        // what RefreshToken answers; nil: a new token
	answer   func(t *pb.Token)   // changes tokens on their way
	hold     <-chan struct{}     // GetToken waits for its end
	calls    map[string]int      // :: method → how often it was called
	open     int                 // streams
	last     *pb.GetTokenRequest // what was asked for last
	rejected []string            // what RefreshToken was asked to replace
}

// change changes the replica, which its streams notice.
func (r *fake) change(f func(*fake)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(r)
	close(r.changed)
	r.changed = make(chan struct{})
}

// buy has the replica hold a new token.
func (r *fake) buy() { r.number, r.issued = r.number+1, time.Now() }

// token returns the token that it holds, and when there will be another.
func (r *fake) token() (*pb.Token, time.Time, error) {
	turn := r.issued.Add(r.life * 3 / 4)
	if r.getErr != nil {
		return nil, turn, r.getErr
	}
	if !time.Now().Before(turn) && !r.away {
		r.buy()
		turn = r.issued.Add(r.life * 3 / 4)
	}
	remaining := time.Until(r.issued.Add(r.life))
	if remaining <= min(time.Minute, r.life/10) {
		return nil, turn, refusal(codes.Unavailable, "ISSUER_UNAVAILABLE", 0)
	}
	t := &pb.Token{
		AccessToken: access(r.number), TokenType: "Bearer", TokenId: id(r.number), Scopes: []string{"a"},
		IssueTime: timestamppb.New(r.issued.Add(r.skew)), ExpireTime: timestamppb.New(r.issued.Add(r.life + r.skew)),
		Remaining: durationpb.New(remaining), ApiBaseUrl: "https://api.example/firm", ApiKey: "key-of-the-firm",
	}
	if r.answer != nil {
		r.answer(t)
	}
	return t, turn, nil
}

func access(number int) string { return fmt.Sprintf("access-%d", number) }
func id(number int) string     { return fmt.Sprintf("%032x", number) }

func (r *fake) GetToken(ctx context.Context, req *pb.GetTokenRequest) (*pb.GetTokenResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls["GetToken"]++
	r.last = req
	if hold := r.hold; hold != nil {
		r.mu.Unlock()
		select {
		case <-hold:
		case <-ctx.Done():
		}
		r.mu.Lock()
		if err := ctx.Err(); err != nil {
			return nil, status.FromContextError(err).Err()
		}
	}
	t, _, err := r.token()
	return &pb.GetTokenResponse{Token: t}, err
}

func (r *fake) RefreshToken(ctx context.Context, req *pb.RefreshTokenRequest) (*pb.RefreshTokenResponse, error) {
	r.mu.Lock()
	r.calls["RefreshToken"]++
	r.rejected = append(r.rejected, req.GetRejectedTokenId())
	refresh := r.refresh
	r.mu.Unlock()
	select { // As long as an exchange takes.
	case <-time.After(100 * time.Millisecond):
	case <-ctx.Done():
	}
	if refresh != nil {
		if err := refresh(); err != nil {
			return nil, err
		}
	} else {
		r.change((*fake).buy)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	t, _, err := r.token()
	return &pb.RefreshTokenResponse{Token: t}, err
}

func (r *fake) WatchToken(req *pb.WatchTokenRequest, stream grpc.ServerStreamingServer[pb.WatchTokenResponse]) error {
	r.mu.Lock()
	r.calls["WatchToken"]++
	r.open++
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.open--
	}()
	sent := ""
	for {
		r.mu.Lock()
		t, turn, err := r.token()
		changed, mute, hollow := r.changed, r.mute, r.hollow
		if r.watchErr != nil {
			err = r.watchErr
		}
		r.mu.Unlock()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		message := &pb.WatchTokenResponse{}
		if t.GetTokenId() != sent && !hollow {
			message.Token, sent = t, t.GetTokenId()
		}
		if !mute {
			if err := stream.Send(message); err != nil {
				return err
			}
		}
		var soon <-chan time.Time
		if wait := time.Until(turn); wait > 0 {
			soon = time.After(wait)
		}
		select {
		case <-changed:
		case <-soon:
		case <-time.After(req.GetHeartbeatInterval().AsDuration()):
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}

// refusal is an error as the broker makes them.
func refusal(code codes.Code, reason string, retry time.Duration) error {
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{Reason: reason, Domain: "tokenbroker"}}
	if retry > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(retry)})
	}
	s, err := status.New(code, "tenants/acme is refused").WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return s.Err()
}

// house is a client and a replica that it is connected to.
type house struct {
	*fake
	client *client.Client
	acme   *client.TokenSource

	server   *grpc.Server // nil: the replica is down
	options  []grpc.ServerOption
	doorLock sync.Mutex
	door     *bufconn.Listener
}

// newHouse works within a bubble and without.
func newHouse(t testing.TB, life time.Duration) *house {
	h := &house{fake: &fake{life: life, number: 1, issued: time.Now(), changed: make(chan struct{}), calls: map[string]int{}}}
	h.up()
	pause := backoff.DefaultConfig
	pause.MaxDelay = 5 * time.Second
	connect := func() *grpc.ClientConn {
		conn, err := grpc.NewClient("passthrough:///broker",
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: pause, MinConnectTimeout: 5 * time.Second}),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
				h.doorLock.Lock()
				defer h.doorLock.Unlock()
				if h.door == nil {
					return nil, errors.New("refused")
				}
				return h.door.DialContext(ctx)
			}))
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	h.client = client.NewForTest(connect(), connect())
	h.acme = h.client.TokenSource("acme")
	t.Cleanup(func() {
		_ = h.client.Close() // Some tests have closed it before.
		h.down()
	})
	return h
}

// up starts the replica.
func (h *house) up() {
	door := bufconn.Listen(1 << 16)
	server := grpc.NewServer(h.options...)
	pb.RegisterTokenServiceServer(server, h.fake)
	go func() { _ = server.Serve(door) }() // Ends with Stop.
	h.server = server
	h.doorLock.Lock()
	defer h.doorLock.Unlock()
	h.door = door
}

// down stops it, and all connections to it.
func (h *house) down() {
	h.doorLock.Lock()
	h.door = nil
	h.doorLock.Unlock()
	if h.server != nil {
		h.server.Stop()
		h.server = nil
	}
}

// inBubble runs f in virtual time with a house whose tokens live for life.
func inBubble(t *testing.T, life time.Duration, f func(t *testing.T, h *house)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { f(t, newHouse(t, life)) })
}

// count returns how often a method was called.
func (h *house) count(method string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.calls[method]
}

// streams returns how many are open.
func (h *house) streams() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.open
}

// want checks that callers get the token with this number, before and after
// everything that can happen has happened.
func (h *house) want(t *testing.T, number int) {
	t.Helper()
	synctest.Wait()
	defer synctest.Wait()
	if got, err := h.acme.Token(); err != nil || got.AccessToken != access(number) {
		t.Fatalf("got %v, %v, want %s", got, err, access(number))
	}
}

// wantError checks that callers get an error with this code, and at once.
func (h *house) wantError(t *testing.T, code codes.Code) {
	t.Helper()
	_ = h.failure(t, code)
}

// failure returns what callers get, which is an error with this code, and at once.
func (h *house) failure(t *testing.T, code codes.Code) error {
	t.Helper()
	synctest.Wait()
	began := time.Now()
	_, err := h.acme.Token()
	if status.Code(err) != code {
		t.Fatalf("got %v, want %v", err, code)
	}
	if waited := time.Since(began); waited > 0 {
		t.Errorf("waited %v for: %v", waited, err)
	}
	return err
}

// later lets time pass, in which the tenant's tokens are in use.
func (h *house) later(d time.Duration) {
	for step := min(d, max(10*time.Second, d/1000)); d > 0; d -= step {
		_, _ = h.acme.Token()
		time.Sleep(min(step, d))
	}
	synctest.Wait()
}
