package redisstore

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

// What somebody asks who wants to know why a Redis does not serve, or whether it
// will. Nothing here changes anything.

// Reached says how far it is to one of the hosts that a URL names.
type Reached struct {
	// Host is host:port.
	Host string
	// Step is the first that failed, StepResolve, StepConnect or StepTLS; empty: none.
	Step string
	// Err is why it failed.
	Err error
}

// The steps to a host.
const (
	StepResolve = "resolve"
	StepConnect = "connect"
	StepTLS     = "tls"
)

// Reach connects to each host that c.URL names, sentinels or servers, and sends no
// command. An error means that the URL cannot be used. Keyset and Logger are not
// needed.
func Reach(ctx context.Context, c Config) ([]Reached, error) {
	a, err := parseURL(c.URL)
	if err != nil {
		return nil, err
	}
	tlsConfig, err := a.tls.load()
	if err != nil {
		return nil, err
	}
	found := make([]Reached, len(a.hosts))
	var all sync.WaitGroup
	for i, host := range a.hosts {
		all.Go(func() { found[i] = reach(ctx, host, tlsConfig) })
	}
	all.Wait()
	return found, nil
}

func reach(ctx context.Context, addr string, tlsConfig *tls.Config) Reached {
	ctx, cancel := context.WithTimeout(ctx, 2*commandTimeout)
	defer cancel()
	host, _, _ := net.SplitHostPort(addr)
	if _, err := net.DefaultResolver.LookupHost(ctx, host); err != nil {
		return Reached{addr, StepResolve, err}
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return Reached{addr, StepConnect, err}
	}
	defer func() { _ = conn.Close() }()
	if tlsConfig == nil {
		return Reached{Host: addr}
	}
	named := tlsConfig.Clone()
	named.ServerName = host
	if err := tls.Client(conn, named).HandshakeContext(ctx); err != nil {
		return Reached{addr, StepTLS, err}
	}
	return Reached{Host: addr}
}

// Refused returns the kind of what Redis has answered in place of a result:
// NOAUTH, WRONGPASS, NOPERM, READONLY, OOM and so on. Empty: the error is no answer
// of Redis.
func Refused(err error) string {
	var r refusal
	if !errors.As(reduce(err), &r) {
		return ""
	}
	return string(r)
}

// Server is what one server with data says of itself.
type Server struct {
	// Addr is host:port; empty: where sentinels lead.
	Addr string
	// Version is Redis's, or the one that another says it is compatible with. Empty:
	// it does not say.
	Version string
	// Replica says that it is a copy of another, which takes no changes.
	Replica bool
	// Latency is that of the quickest of some commands.
	Latency time.Duration
	// Ahead is how far its clock is before this machine's, give or take Latency.
	Ahead time.Duration
}

// How many commands are sent to a server to measure it.
const samples = 5

// Servers asks the server, or each primary of a cluster, who it is, in the order of
// their addresses.
func (s *Store) Servers(ctx context.Context) ([]Server, error) {
	var mu sync.Mutex
	var found []Server
	err := s.eachServer(ctx, func(ctx context.Context, client *redis.Client) error {
		server, err := lookAt(ctx, client)
		if s.shape != sentinels { // Else it is the address of a sentinel.
			server.Addr = client.Options().Addr
		}
		mu.Lock()
		defer mu.Unlock()
		found = append(found, server)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("look at redis: %w", reduce(err))
	}
	slices.SortFunc(found, func(a, b Server) int { return cmp.Compare(a.Addr, b.Addr) })
	return found, nil
}

// eachServer calls look for the server, or for each primary of a cluster at once.
func (s *Store) eachServer(ctx context.Context, look func(context.Context, *redis.Client) error) error {
	switch client := s.client.(type) {
	case *redis.ClusterClient:
		return client.ForEachMaster(ctx, look)
	case *redis.Client:
		return look(ctx, client)
	default:
		return fmt.Errorf("no servers of a %T", client)
	}
}

func lookAt(ctx context.Context, client *redis.Client) (Server, error) {
	s := Server{Latency: time.Hour}
	if err := client.Ping(ctx).Err(); err != nil { // The first has to connect.
		return s, err
	}
	for range samples {
		asked := time.Now()
		there, err := client.Time(ctx).Result()
		took := time.Since(asked)
		if err != nil {
			return s, err
		}
		if took < s.Latency {
			s.Latency, s.Ahead = took, there.Sub(asked.Add(took/2))
		}
	}
	said, err := client.Info(ctx, "server", "replication").Result()
	if err == nil && !strings.Contains(said, "redis_version:") {
		said, err = client.Info(ctx).Result() // Before 7.0, INFO takes one section.
	}
	if err != nil && !refused(err) {
		return s, err
	}
	info := fields(said)
	s.Version, s.Replica = info["redis_version"], info["role"] == "slave"
	return s, nil
}

// Rights is what a user may do.
type Rights struct {
	// Missing are commands that the broker sends and the user may not, for the keys
	// under the prefix.
	Missing []string
	// Refused are the kinds of answers that are given to changes now, whoever makes
	// them: READONLY, MISCONF, OOM, NOREPLICAS and so on.
	Refused []string
}

// questions are all commands that the broker sends, so that none of them does
// anything: they read, or what they say cannot be done, which Redis finds out after
// it has looked whether the user may. KEY stands for a key that nobody uses.
var questions = [][]any{
	{"exists", "KEY"}, {"get", "KEY"}, {"set", "KEY", "", "no option"}, {"del", "KEY"},
	{"pttl", "KEY"}, {"pexpire", "KEY", 1}, {"time"},
	{"hget", "KEY", "f"}, {"hmget", "KEY", "f"}, {"hset", "KEY", "f", "v", "no value"}, {"hdel", "KEY", "f"}, {"hscan", "KEY", 0}, {"hincrby", "KEY", "f", "no number"},
	{"zadd", "KEY", "no score", "m"}, {"zrem", "KEY", "m"}, {"zcard", "KEY"}, {"zcount", "KEY", 0, 0}, {"zrange", "KEY", 0, 0}, {"zrevrange", "KEY", 0, 0}, {"zrangebylex", "KEY", "-", "+"}, {"zremrangebyscore", "KEY", 0, 0},
	{"xadd", "KEY", "no id", "f", "v"}, {"xread", "count", 1, "streams", "KEY", 0}, {"xrange", "KEY", "-", "+"}, {"xrevrange", "KEY", "+", "-"},
	{"eval", "no script", 1, "KEY"}, {"evalsha", "0000000000000000000000000000000000000000", 1, "KEY"},
	{"info", "server"}, {"scan", 0, "count", 1},
}

// Rights asks what the user may do, on the server or each primary of a cluster.
func (s *Store) Rights(ctx context.Context) (Rights, error) {
	var mu sync.Mutex
	missing, answers := map[string]bool{}, map[string]bool{}
	err := s.eachServer(ctx, func(ctx context.Context, client *redis.Client) error {
		for _, question := range questions {
			args := slices.Clone(question)
			for n, arg := range args {
				if arg == "KEY" {
					args[n] = s.prefix + "{tenants}:doctor"
				}
			}
			err := client.Do(ctx, args...).Err()
			kind := Refused(err)
			mu.Lock()
			switch kind {
			case "NOPERM":
				missing[question[0].(string)] = true
			case "", "ERR", "NOSCRIPT", "MOVED":
			default:
				answers[kind] = true
			}
			mu.Unlock()
			if kind == "" && err != nil && !errors.Is(err, redis.Nil) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return Rights{}, fmt.Errorf("ask redis for rights: %w", reduce(err))
	}
	var r Rights
	for _, question := range questions {
		if name := question[0].(string); missing[name] {
			r.Missing = append(r.Missing, name)
		}
	}
	for kind := range answers {
		r.Refused = append(r.Refused, kind)
	}
	slices.Sort(r.Refused)
	return r, nil
}

// RegistryState is what can be seen of the registry from outside.
type RegistryState struct {
	// Tenants is how many are registered.
	Tenants int
	// There says that a registry was begun. It stays when the last tenant is deleted.
	There bool
	// Heard says that there is a stream of changes: brokers have worked with this
	// Redis, since it was emptied last. If the registry is not there, it is lost.
	Heard bool
}

// Registry says how the registry is.
func (s *Store) Registry(ctx context.Context) (RegistryState, error) {
	pipe := s.client.Pipeline()
	name, count, heard := pipe.Exists(ctx, s.registryKey()), pipe.ZCard(ctx, s.indexKey()), pipe.Exists(ctx, s.changesKey())
	if _, err := pipe.Exec(ctx); err != nil {
		return RegistryState{}, fmt.Errorf("look at the registry: %w", reduce(err))
	}
	return RegistryState{Tenants: int(count.Val()), There: name.Val() > 0, Heard: heard.Val() > 0}, nil
}
