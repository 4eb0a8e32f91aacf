package redisstore_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"smokeball.internal/tokenbroker/internal/tenant"
)

// listAll calls seen with each page.
func listAll(t *testing.T, f *fixture, limit int, seen func([]*tenant.Tenant)) {
	t.Helper()
	for after := ""; ; {
		page, next, err := f.ListTenants(t.Context(), after, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) > limit {
			t.Fatalf("%d tenants on a page of %d", len(page), limit)
		}
		seen(page)
		if next == "" {
			return
		}
		if next <= after {
			t.Fatalf("page behind %q is followed by one behind %q", after, next)
		}
		after = next
	}
}

func TestListOfAThousandTenants(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		const count = 1000
		var want []string
		for _, i := range rand.Perm(count) {
			id := fmt.Sprintf("tenant-%d", i)
			f.create(t, newTenant(id))
			want = append(want, id)
		}
		slices.Sort(want)
		for _, limit := range []int{1000, 999, 100, 1} {
			pages, got := 0, []string{}
			listAll(t, f, limit, func(page []*tenant.Tenant) {
				pages++
				for _, each := range page {
					got = append(got, each.ID)
					if each.Secret.Value.Reveal() != "secret-of-"+each.ID {
						t.Errorf("%s has the secret of another", each.ID)
					}
				}
			})
			if !slices.Equal(got, want) {
				t.Errorf("by %d: %d tenants, or not in order", limit, len(got))
			}
			// The last page says that it is.
			if wantPages := (count + limit - 1) / limit; pages != wantPages {
				t.Errorf("by %d: %d pages, want %d", limit, pages, wantPages)
			}
		}
	})
}

func TestListOfNone(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		if page, next, err := f.ListTenants(t.Context(), "", 10); len(page) != 0 || next != "" || err != nil {
			t.Errorf("%v, next %q, error %v", page, next, err)
		}
		f.create(t, newTenant("acme"))
		if page, next, err := f.ListTenants(t.Context(), "acme", 10); len(page) != 0 || next != "" || err != nil {
			t.Errorf("behind the last: %v, next %q, error %v", page, next, err)
		}
	})
}

// Who pages through the list while others change it must not miss a tenant that
// is there all the time, nor see it twice.
func TestListIsStableUnderChanges(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		var staying []string
		passing := map[string]string{} // id → etag
		for i := range 60 {
			stays := fmt.Sprintf("%03d-stays", i)
			f.create(t, newTenant(stays))
			staying = append(staying, stays)
			passes := fmt.Sprintf("%03d-passes", i)
			passing[passes] = f.create(t, newTenant(passes)).Etag
		}
		var got []string
		listAll(t, f, 7, func(page []*tenant.Tenant) {
			for _, each := range page {
				got = append(got, each.ID)
			}
			for range 5 {
				id := fmt.Sprintf("%03d-passes", rand.N(60))
				if etag, there := passing[id]; there {
					if err := f.DeleteTenant(t.Context(), id, etag); err != nil {
						t.Error(err)
					}
					delete(passing, id)
				} else {
					passing[id] = f.create(t, newTenant(id)).Etag
				}
			}
			// The very one that the next page is behind.
			if last := got[len(got)-1]; passing[last] != "" {
				if err := f.DeleteTenant(t.Context(), last, passing[last]); err != nil {
					t.Error(err)
				}
				delete(passing, last)
			}
		})
		if !slices.IsSorted(got) {
			t.Errorf("not in order: %q", got)
		}
		got = slices.DeleteFunc(got, func(id string) bool { return strings.HasSuffix(id, "-passes") })
		if !slices.Equal(got, staying) {
			t.Errorf("of those that stay, listed %q", got)
		}
	})
}

// One record that cannot be opened must not hide the others.
func TestListNamesTenantsThatCannotBeOpened(t *testing.T) {
	onBoth(t, func(t *testing.T, f *fixture) {
		for _, id := range []string{"a", "b", "c"} {
			f.create(t, newTenant(id))
		}
		if err := f.raw.HSet(t.Context(), recordsKey, "b", "junk").Err(); err != nil {
			t.Fatal(err)
		}
		page, _, err := f.ListTenants(t.Context(), "", 10)
		if err != nil || len(page) != 3 || page[1].ID != "b" || page[1].Region != "" || page[2].Region == "" {
			t.Errorf("listed %+v, error %v", page, err)
		}
		if log := f.log.String(); !strings.Contains(log, "tenant=b") {
			t.Errorf("log: %s", log)
		}
	})
}
