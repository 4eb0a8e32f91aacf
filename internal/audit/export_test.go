package audit

import "time"

// Chain is a new chain of records.
type Chain struct{ head }

// NewChain begins a chain.
func NewChain() *Chain { return &Chain{newChain()} }

// Append appends the next record to buf, as Run does, which says that it is of at:
// Unix nanoseconds. It may clip r.
func (c *Chain) Append(buf []byte, r *Record, at int64) []byte {
	return c.append(buf, line{Record: *r}, time.Unix(0, at))
}
