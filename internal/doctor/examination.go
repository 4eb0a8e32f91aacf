package doctor

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"smokeball.internal/tokenbroker/internal/redisstore"
	"smokeball.internal/tokenbroker/internal/seal"
	"smokeball.internal/tokenbroker/internal/tenant"
)

// sampled is how many tenants are opened to see whether they can be.
const sampled = 1000

// examination is what the checks share. What one of them needs of another is done
// once, by whichever asks first.
type examination struct {
	Config
	keyset  func() (*seal.Keyset, error)
	store   func() (*redisstore.Store, error)
	servers func() ([]redisstore.Server, error)
	tenants func() ([]*tenant.Tenant, error) // the first of them; a record that cannot be opened has no region
	opened  atomic.Pointer[redisstore.Store]
}

// errNoKeyset says that what needs a keyset has to wait.
var errNoKeyset = errors.New("there is no keyset to open it with")

func newExamination(ctx context.Context, c Config) *examination {
	e := &examination{Config: c}
	e.keyset = sync.OnceValues(func() (*seal.Keyset, error) {
		if c.Settings.KeysetFile == "" {
			return nil, errors.New("--keyset-file is not set")
		}
		return seal.Load(ctx, c.Settings.KeysetFile)
	})
	e.store = sync.OnceValues(func() (*redisstore.Store, error) {
		keyset, err := e.keyset()
		if err != nil {
			// Whether Redis is there can be seen without it.
			if keyset, err = seal.Ephemeral(); err != nil {
				return nil, err
			}
		}
		store, err := c.OpenStore(keyset)
		e.opened.Store(store)
		return store, err
	})
	e.servers = sync.OnceValues(func() ([]redisstore.Server, error) {
		store, err := e.store()
		if err != nil {
			return nil, err
		}
		return store.Servers(ctx)
	})
	e.tenants = sync.OnceValues(func() ([]*tenant.Tenant, error) {
		if _, err := e.keyset(); err != nil {
			return nil, errNoKeyset
		}
		store, err := e.store()
		if err != nil {
			return nil, err
		}
		tenants, _, err := store.ListTenants(ctx, "", sampled)
		return tenants, err
	})
	return e
}

// close ends what was opened, without waiting for what was not.
func (e *examination) close() {
	if store := e.opened.Load(); store != nil {
		_ = store.Close()
	}
}
