package broker

// Entries counts the keys that the broker has something in memory for.
func (b *Broker) Entries() (n int) {
	b.entries.Range(func(any, any) bool { n++; return true })
	return n
}
