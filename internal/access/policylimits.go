package access

import (
	"regexp"
	"strconv"

	"gopkg.in/yaml.v3"
)

// What limits a caller for whom the access file sets no other.
const (
	DefaultCallsPerSecond     = 1000
	DefaultRefreshesPerMinute = 60
	DefaultOpenCalls          = 5000
	DefaultConnections        = 1000
)

// Limits are how much a caller may do, on each replica. In a field, 0 stands for
// no limit; no access file can say that, only Everything.
type Limits struct {
	// CallsPerSecond is for calls of all methods together.
	CallsPerSecond float64
	// RefreshesPerMinute is for RefreshToken.
	RefreshesPerMinute float64
	// OpenCalls is how many calls may be under way at a time, streams among them.
	OpenCalls int
	// Connections is how many connections may be open at a time.
	Connections int
}

// defaultLimits are the limits of a caller whom the access file gives none.
func defaultLimits() Limits {
	return Limits{
		CallsPerSecond: DefaultCallsPerSecond, RefreshesPerMinute: DefaultRefreshesPerMinute,
		OpenCalls: DefaultOpenCalls, Connections: DefaultConnections,
	}
}

// allowance is an entry of the access file: limits, and for whom.
type allowance struct {
	line       int
	principals []pattern
	limits     Limits
}

func (f *policyFile) allowance(n *yaml.Node) allowance {
	a := allowance{line: n.Line, limits: defaultLimits()}
	fields := f.fields(n, "a limit", "principals", "calls_per_second", "refreshes_per_minute", "open_calls", "connections")
	a.principals = parseAll(f, fields["principals"], "principals", parsePrincipal)
	a.limits.CallsPerSecond = f.rate(fields["calls_per_second"], "calls_per_second", a.limits.CallsPerSecond)
	a.limits.RefreshesPerMinute = f.rate(fields["refreshes_per_minute"], "refreshes_per_minute", a.limits.RefreshesPerMinute)
	a.limits.OpenCalls = f.count(fields["open_calls"], "open_calls", a.limits.OpenCalls)
	a.limits.Connections = f.count(fields["connections"], "connections", a.limits.Connections)
	if n.Kind != yaml.MappingNode {
		return a
	}
	if fields["principals"] == nil {
		f.refuse(n.Line, "a limit must have principals")
	} else if len(fields) == 1 {
		f.refuse(n.Line, "a limit must have one of calls_per_second, refreshes_per_minute, open_calls and connections")
	}
	return a
}

// maxLimit is more than any caller can do.
const maxLimit = 1_000_000

var (
	// No exponents, and no leading zeros: those are octal to some.
	decimal = regexp.MustCompile(`^(0|[1-9][0-9]{0,6})(\.[0-9]{1,6})?$`)
	whole   = regexp.MustCompile(`^[1-9][0-9]{0,6}$`)
)

// rate reads a number that may have a fraction; preset, if n is nil.
func (f *policyFile) rate(n *yaml.Node, key string, preset float64) float64 {
	if n == nil {
		return preset
	}
	text, ok := f.text(n, key)
	if !ok {
		return preset
	}
	value, err := strconv.ParseFloat(text, 64)
	if err != nil || !decimal.MatchString(text) || value == 0 || value > maxLimit {
		f.refuse(n.Line, "%s: must be a number such as 200 or 0.5, above 0 and at most %d", key, maxLimit)
	}
	return value
}

// count reads a whole number; preset, if n is nil.
func (f *policyFile) count(n *yaml.Node, key string, preset int) int {
	if n == nil {
		return preset
	}
	text, ok := f.text(n, key)
	if !ok {
		return preset
	}
	value, err := strconv.Atoi(text)
	if err != nil || !whole.MatchString(text) || value > maxLimit {
		f.refuse(n.Line, "%s: must be a whole number from 1 to %d", key, maxLimit)
	}
	return value
}
