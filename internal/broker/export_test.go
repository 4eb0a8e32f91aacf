package broker

// Entries counts the keys that the broker has something in memory for.
func (b *Broker) Entries() (n int) {
	b.entries.Range(func(any, any) bool { n++; return true })
	return n
}

// Bells counts the tenants that somebody watches.
func (b *Broker) Bells() int {
	b.bells.mu.Lock()
	defer b.bells.mu.Unlock()
	return len(b.bells.bells)
}
