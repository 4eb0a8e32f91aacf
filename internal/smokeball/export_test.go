package smokeball

import "net/http"

// Transport lets a test put a network of its own, or a certificate it trusts, under the issuer's real transport.
func (i *Issuer) Transport() *http.Transport { return i.client.Transport.(*http.Transport) }

// Interpret lets a fuzz test reach the interpretation of an answer without a network around it.
var Interpret = interpret

// ExchangeTimeout is the bound of an exchange.
const ExchangeTimeout = exchangeTimeout
