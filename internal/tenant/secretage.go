package tenant

import "time"

// SecretSince returns since when the tenant may have had its secret. If that was not
// noted it is the time of its registration: a secret looks older than it is then, and
// never younger.
func (t *Tenant) SecretSince() time.Time {
	if t.SecretUpdated.IsZero() {
		return t.Created
	}
	return t.SecretUpdated
}

// SecretAges says how old the client secrets of a registry are. Those of disabled
// tenants are not in use, and not among them.
type SecretAges struct {
	// Count is how many there are.
	Count uint64
	// Within counts, for each of the ages that were asked for, those that are no
	// older.
	Within []uint64
	// Oldest are the oldest, the oldest first.
	Oldest []SecretAge
}

// SecretAge says how old a client secret is.
type SecretAge struct {
	// Tenant is the id of the tenant that has it.
	Tenant string
	// Since is since when, see Tenant.SecretSince.
	Since time.Time
}
