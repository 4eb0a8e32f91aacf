package audit

// Chain is a chain of records.
type Chain struct{ chain }

// NewChain begins a chain.
func NewChain() *Chain { return &Chain{chain{head: newHead()}} }

// ID is its name.
func (c *Chain) ID() string { return c.id }

// Append appends the next record to buf, as Run does: r with o, of the time at in
// nanoseconds since 1970. It may clip r.
func (c *Chain) Append(buf []byte, r *Record, o Own, at int64) []byte {
	return c.append(buf, r, o, at)
}

// Own is what the log's own records say beside their event.
type Own = own

// Clip bounds the texts of r to limit bytes.
func (r *Record) Clip(limit int) { r.clip(limit) }
