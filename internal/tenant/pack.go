package tenant

import (
	"strings"

	"smokeball.internal/tokenbroker/internal/secret"
)

// Pack moves the text of t into two pieces of memory, one of them for what is secret,
// in place of one for each field. Nothing else changes. Who holds a hundred thousand
// tenants has the collector of garbage look at each piece again and again.
func (t *Tenant) Pack() {
	pack(&t.ID, &t.Etag, (*string)(&t.Region), (*string)(&t.Environment), &t.DisplayName, &t.ClientID, &t.Secret.ID, &t.Fallback.ID, &t.AccountID)
	secret.Pack(&t.APIKey, &t.Secret.Value, &t.Fallback.Value)
}

func pack(texts ...*string) {
	var b strings.Builder
	for _, s := range texts {
		b.WriteString(*s)
	}
	all := b.String()
	for _, s := range texts {
		*s, all = all[:len(*s)], all[len(*s):]
	}
}
