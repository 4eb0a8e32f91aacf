package broker

// Entries counts the keys that the broker has something in memory for.
func (b *Broker) Entries() int { return b.entries.Size() }

// Bells counts the tenants that somebody watches.
func (b *Broker) Bells() int {
	b.bells.mu.Lock()
	defer b.bells.mu.Unlock()
	return len(b.bells.bells)
}
