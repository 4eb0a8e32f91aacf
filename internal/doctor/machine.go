package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"syscall"
)

// running is what a broker on this machine says of itself.
type running struct {
	Version  string `json:"version"`
	Ready    bool   `json:"ready"`
	NotReady string `json:"not_ready_because"`
}

// addresses tells whether the server can listen, or already does.
func (e *examination) addresses(ctx context.Context, r *report) {
	broker := e.running(ctx)
	for _, at := range []struct{ setting, addr string }{{"--grpc-addr", e.Settings.GRPCAddr}, {"--ops-addr", e.Settings.OpsAddr}} {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", at.addr)
		switch {
		case err == nil:
			_ = l.Close()
			r.ok("%s: %s is free", at.setting, at.addr)
		case errors.Is(err, syscall.EADDRINUSE) && broker != nil:
			r.ok("%s: %s is in use, and a broker is running here (version %s)", at.setting, at.addr, broker.Version)
		case errors.Is(err, syscall.EADDRINUSE):
			r.problem("See what listens there (ss -ltnp), end it, or take another address.", "%s: %s is in use, and not by a broker with this --ops-addr", at.setting, at.addr)
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			r.problem("Take an address of this machine (ip addr), or 0.0.0.0 for all.", "%s: %s is no address of this machine", at.setting, at.addr)
		case errors.Is(err, syscall.EACCES):
			r.problem("Take a port above 1023.", "%s: %s may not listen at %s", at.setting, me(), at.addr)
		default:
			r.problem("Correct it: HOST:PORT.", "%s: nobody can listen at %s", at.setting, at.addr)
		}
	}
	if broker != nil && !broker.Ready {
		r.problem("Look at its log.", "the broker that is running here is not ready: %s", broker.NotReady)
	}
}

// running returns what the broker says whose operators' address this is; nil, if
// there is none.
func (e *examination) running(ctx context.Context) *running {
	content, err := e.AskStatus(ctx)
	var said running
	if err != nil || json.Unmarshal(content, &said) != nil || said.Version == "" {
		return nil
	}
	return &said
}

// limits tells what the system allows the server.
func (e *examination) limits(_ context.Context, r *report) {
	if err := e.ForbidCoreDumps(); err != nil {
		r.warn("Run it where prctl(2) is allowed, or set LimitCORE=0.", "a crash may write secrets to disk: %v", err)
	} else {
		r.ok("a crash leaves no core dump")
	}
	files, known := openFiles()
	switch {
	case !known:
		r.skip("how many files may be open is not known on this system")
	case files < minFiles:
		r.warn("Raise it: LimitNOFILE=65536 in a systemd unit, ulimit -n 65536 in a shell.",
			"%d files may be open at a time: each caller is a connection, and a balancer's or a restart's rush of them needs more", files)
	default:
		r.ok("%d files may be open at a time", files)
	}
}

// minFiles is a thousand connections of strangers, which the server allows, and some
// thousands of callers.
const minFiles = 4096
