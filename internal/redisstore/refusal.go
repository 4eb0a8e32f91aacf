package redisstore

import (
	"context"
	"errors"
	"strings"

	"github.com/redis/go-redis/v9"
)

// refusal is an error that Redis answered, reduced to its first word, which is
// its kind (NOAUTH, READONLY, OOM). The rest can quote what was sent: to a Redis
// without AUTH, the password.
type refusal string

// Error returns the kind first, as Redis does.
func (r refusal) Error() string { return string(r) + ": redis refuses the command" }

// RedisError marks it as an answer of Redis, for the client.
func (refusal) RedisError() {}

// reduce turns an answer of Redis into a refusal, and leaves other errors.
func reduce(err error) error {
	if errors.As(err, new(refusal)) {
		return err // It is one already.
	}
	var answer redis.Error
	if err == nil || errors.Is(err, redis.Nil) || !errors.As(err, &answer) {
		return err
	}
	kind, _, _ := strings.Cut(strings.TrimPrefix(answer.Error(), "-"), " ")
	if kind == "" || strings.Trim(kind, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") != "" {
		kind = "ERR"
	}
	return refusal(kind)
}

// refused tells whether an error is the answer that a command is not there, cannot
// be had as things are, or is not for this user.
func refused(err error) bool {
	var r refusal
	return errors.As(reduce(err), &r) && (r == "ERR" || r == "NOPERM")
}

// reducing has every error of the client reduced.
type reducing struct{}

// DialHook implements redis.Hook.
func (reducing) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements redis.Hook.
func (reducing) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := reduce(next(ctx, cmd))
		cmd.SetErr(reduce(cmd.Err()))
		return err
	}
}

// ProcessPipelineHook implements redis.Hook.
func (reducing) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := reduce(next(ctx, cmds))
		for _, cmd := range cmds {
			cmd.SetErr(reduce(cmd.Err()))
		}
		return err
	}
}
