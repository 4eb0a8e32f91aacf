package token_test

import (
	"testing"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

func TestATurnIsGivenWithinTheBudgetOrCostsNothing(t *testing.T) {
	waits := token.TurnRequest{Cost: time.Second, Burst: 2, Patience: time.Second}
	ahead := token.TurnRequest{Cost: time.Second, Burst: 2, Spare: 1}
	now, paid := issued, time.Time{}
	for n, step := range []struct {
		after time.Duration
		r     token.TurnRequest
		want  token.Turn
	}{
		{0, ahead, token.Turn{Given: true, Owed: 1}},
		{0, ahead, token.Turn{Wait: time.Second, Owed: 1}},
		{0, waits, token.Turn{Given: true, Owed: 2}},
		{0, waits, token.Turn{Given: true, Wait: time.Second, Owed: 3}},
		{0, waits, token.Turn{Wait: time.Second, Owed: 3}},
		{500 * time.Millisecond, waits, token.Turn{Wait: 500 * time.Millisecond, Owed: 3}},
		{500 * time.Millisecond, waits, token.Turn{Given: true, Wait: time.Second, Owed: 3}},
		{time.Hour, ahead, token.Turn{Given: true, Owed: 1}},
	} {
		now = now.Add(step.after)
		var got token.Turn
		if got, paid = step.r.Turn(paid, now); got != step.want {
			t.Errorf("step %d: %+v, want %+v", n, got, step.want)
		}
	}
}
