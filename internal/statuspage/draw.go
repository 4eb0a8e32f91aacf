package statuspage

import (
	"fmt"
	"strings"
	"time"

	"smokeball.internal/tokenbroker/internal/token"
)

// bar is what is left of a token's life, in hundredths of it.
type bar struct {
	Left  string
	Mark  string // where the refresh is due
	State state
	Says  string
}

func barOf(t *token.Token, now time.Time) *bar {
	of := func(d time.Duration) float64 { return min(100, max(0, 100*float64(d)/float64(t.Lifetime()))) }
	left := t.Expires.Sub(now)
	b := &bar{
		Left:  fmt.Sprintf("%.1f", of(left)),
		Mark:  fmt.Sprintf("%.1f", of(t.Expires.Sub(t.RefreshAt))),
		State: good,
		Says:  fmt.Sprintf("%s left of %s", span(left), span(t.Lifetime())),
	}
	switch {
	case !t.Usable(now, 0):
		b.State = bad
	case t.Due(now):
		b.State = warn
	}
	return b
}

const (
	// The plot's columns are this wide, with the gap behind them; what brought a
	// token goes up from the base, what failed goes down.
	column, gap = 3, 1
	base, depth = 14, 8
	// At least so many make a column full: one or two exchanges in an hour are what
	// most tenants have.
	full = 2
)

// plot is the exchanges of the last day. The zero plot has none.
type plot struct {
	Up, Down    string // paths: those that brought a token, those that failed
	Sum, Failed string // how many there were; Failed is empty if none did
	Says        string // what is to be seen, in words
}

func plotOf(h *token.History) plot {
	sum := h.Sum()
	if sum == (token.Exchanges{}) {
		return plot{}
	}
	mostOK, mostFailed := full, full
	for _, hour := range h {
		mostOK, mostFailed = max(mostOK, hour.OK), max(mostFailed, hour.Failed)
	}
	var up, down strings.Builder
	for i, hour := range h {
		x := i * (column + gap)
		if hour.OK > 0 {
			high := max(2, base*hour.OK/mostOK)
			_, _ = fmt.Fprintf(&up, "M%d %dh%dv%dh-%dz", x, base-high, column, high, column)
		}
		if hour.Failed > 0 {
			deep := max(2, depth*hour.Failed/mostFailed)
			_, _ = fmt.Fprintf(&down, "M%d %dh%dv%dh-%dz", x, base+1, column, deep, column)
		}
	}
	p := plot{Up: up.String(), Down: down.String(), Sum: count(sum.OK + sum.Failed),
		Says: counted(sum.OK+sum.Failed, "exchange", "exchanges") + " in the last 24 hours"}
	if sum.Failed > 0 {
		p.Failed = count(sum.Failed) + " failed"
		p.Says += ", " + p.Failed
	}
	return p
}
