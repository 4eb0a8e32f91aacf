package access

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Caller is who makes a call, as far as that is proved: by a certificate, for the
// life of a connection, or by a token, for one call. It is safe for concurrent use.
type Caller struct {
	// names are all that the proof says of the caller; the first is its principal.
	names   []string
	expires time.Time // of the proof
	// stands says whether whoever vouched for the caller is still trusted.
	stands  func(*Caller) error
	vouched atomic.Uint64 // the trust that it was last found to stand in
	chain   []*x509.Certificate
	keyID   string // thumbprint of the key that signed the token

	granted atomic.Pointer[granted]
	account atomic.Pointer[account]
}

// granted is what a policy gives to these names, kept until there is another
// policy.
type granted struct {
	policy *Policy
	names  []string
	grants *Grants
}

// Principal is the name that a caller is known by: in limits and in the audit
// log.
func (c *Caller) Principal() string { return c.names[0] }

// Names returns all names of the caller, any of which a rule may mean.
func (c *Caller) Names() []string { return c.names }

// fromCertificate returns the caller that a verified chain of certificates, the
// caller's own first, stands for. Its names are the SPIFFE ID, the DNS names, and the
// subject, in this order, as far as the certificate has them. A certificate with
// a SPIFFE ID that is not one, or more than one, is refused, as the standard demands
// (https://spiffe.io/docs/latest/spiffe-specs/x509-svid/).
func fromCertificate(chain []*x509.Certificate) (*Caller, error) {
	leaf := chain[0]
	c := &Caller{chain: chain, expires: leaf.NotAfter}
	for _, certificate := range chain {
		if certificate.NotAfter.Before(c.expires) {
			c.expires = certificate.NotAfter
		}
	}
	for _, uri := range leaf.URIs {
		if !strings.EqualFold(uri.Scheme, "spiffe") {
			continue
		}
		id, err := x509svid.IDFromCert(leaf)
		if err != nil {
			return nil, errors.New("the certificate must have one SPIFFE ID, and no other URI")
		}
		c.names = append(c.names, id.String())
		break
	}
	for _, name := range leaf.DNSNames {
		c.names = append(c.names, "dns:"+strings.ToLower(name))
	}
	// Not leaf.Subject, which has only the last of several common names, and an order
	// of its own.
	var subject pkix.RDNSequence
	if _, err := asn1.Unmarshal(leaf.RawSubject, &subject); err != nil {
		return nil, errors.New("the certificate's subject is not a distinguished name")
	}
	if len(subject) > 0 {
		c.names = append(c.names, "subject:"+subject.String())
	}
	if len(c.names) == 0 {
		return nil, errors.New("the certificate names nobody: it has no SPIFFE ID, no DNS name and no subject")
	}
	const most = 100
	if len(c.names) > most {
		return nil, fmt.Errorf("the certificate has more than %d names", most)
	}
	return c, nil
}
