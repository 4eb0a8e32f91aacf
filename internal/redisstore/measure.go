package redisstore

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// Observer is told how long commands took. Its methods are called by many at once
// and must not block.
type Observer interface {
	// Answered: Redis has answered a command, one of Commands, after this long, with
	// the wait for a connection and all attempts; failed says that there was no answer,
	// or that it refuses what was asked. Of commands that are sent together each is told
	// with the time of all.
	Answered(command string, took time.Duration, failed bool)
}

// otherCommand stands for what the client sends of its own accord: it asks the
// nodes of a cluster who they are.
const otherCommand = "other"

// commands are what the store sends by their own names. XREAD is not among them: it
// waits for changes, most of the time for as long as it may, and Stats says how
// that goes.
var commands = []string{"exists", "get", "hget", "hmget", "hscan", "scan", "zcard", "zcount", "zrange", "zrangebylex", "zrem", "xadd", "xrange", "xrevrange", "waitaof", "info", "config"}

// Commands returns the names that commands are told by, in the order of the
// alphabet. A script has its own.
func Commands() []string {
	names := append(slices.Clone(commands), otherCommand)
	for _, name := range scriptNames {
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// nameOf returns the name of a command; empty for one that is not told of.
func nameOf(cmd redis.Cmder) string {
	switch name := cmd.Name(); {
	case name == "xread":
		return ""
	case slices.Contains(commands, name):
		return name
	default:
		return cmp.Or(scriptOf(cmd), otherCommand)
	}
}

// failed says whether what came of a command is a failure: not that there is no
// such value, that a script is not known yet, and is sent as a whole, or that
// Redis does not have, or does not allow, what the store does without.
func failed(name string, err error) bool {
	switch {
	case err == nil, errors.Is(err, redis.Nil), redis.HasErrorPrefix(err, "NOSCRIPT"):
		return false
	case name == "waitaof", name == "info", name == "config":
		return !refused(err)
	default:
		return true
	}
}

// measure has an observer told of all that a client sends.
func measure(client redis.UniversalClient, o Observer) {
	client.AddHook(measuring{o})
	if cluster, ok := client.(*redis.ClusterClient); ok { // Some of it is sent to a node.
		cluster.OnNewNode(func(node *redis.Client) { node.AddHook(measuring{o}) })
	}
}

// measuring tells an observer of all commands.
type measuring struct{ observer Observer }

// within marks the context of a command: what is sent for its sake, to a node
// of a cluster or on a new connection, is part of it.
type within struct{}

// DialHook implements redis.Hook.
func (measuring) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (m measuring) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if ctx.Value(within{}) != nil {
			return next(ctx, cmd)
		}
		begin := time.Now()
		err := next(context.WithValue(ctx, within{}, true), cmd)
		m.tell(cmd, err, time.Since(begin))
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (m measuring) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if ctx.Value(within{}) != nil {
			return next(ctx, cmds)
		}
		begin := time.Now()
		err := next(context.WithValue(ctx, within{}, true), cmds)
		took := time.Since(begin)
		for _, cmd := range cmds {
			m.tell(cmd, cmd.Err(), took)
		}
		return err
	}
}

// tell tells of a command, unless whoever asked has given up, which says nothing of
// Redis.
func (m measuring) tell(cmd redis.Cmder, err error, took time.Duration) {
	if name := nameOf(cmd); name != "" && !errors.Is(err, context.Canceled) {
		m.observer.Answered(name, took, failed(name, err))
	}
}
