package audit

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// noHash is what the first record of a chain follows.
var noHash = strings.Repeat("0", hashSize)

// head is the last record of a chain. In a new one, seq is 0.
type head struct {
	id   string // names the chain
	seq  uint64
	hash [hashSize]byte // in hex
}

func newHead() head {
	id := make([]byte, chainSize/2)
	_, _ = rand.Read(id) // Never fails, see crypto/rand.
	return headOf(line{Chain: hex.EncodeToString(id), hash: noHash})
}

func headOf(l line) head {
	return head{l.Chain, l.Seq, [hashSize]byte([]byte(l.hash))}
}

// chain writes the records of a chain, from its head on.
type chain struct {
	head
	clock
}

// append appends r and o to buf, as the record after the head, which moves on to it.
// If that makes the line too long, texts are clipped, in r too. Nothing is allocated
// but what buf has no room for.
//
// By hand, since with encoding/json a record takes five times as long.
func (c *chain) append(buf []byte, r *Record, o own, at int64) []byte {
	begin := len(buf)
	for limit := maxText; ; limit /= 2 {
		buf = c.appendBody(buf[:begin], r, o, at)
		if size := len(buf) - begin + tailSize + len("\n"); size < maxLine || limit == 1 {
			break
		}
		r.clip(limit / 2) // Escaped, it is several times longer.
	}
	sum := sha256.Sum256(buf[begin:])
	hex.Encode(c.hash[:], sum[:])
	c.seq++
	buf = append(buf, hashStart...)
	buf = append(buf, c.hash[:]...)
	return append(buf, lineEnd+"\n"...)
}

// appendBody appends the line of a record up to its hash: the members of a line, in
// their order.
func (c *chain) appendBody(buf []byte, r *Record, o own, at int64) []byte {
	buf = append(buf, lineStart...)
	buf = append(buf, c.id...)
	buf = append(buf, '"')
	buf = appendNumber(buf, `,"seq":`, c.seq+1)
	buf = append(buf, `,"time":"`...)
	buf = c.clock.append(buf, at)
	buf = append(buf, '"')

	buf = appendText(buf, `,"event":"`, r.Event)
	buf = appendText(buf, `,"phase":"`, r.Phase)
	buf = appendText(buf, `,"request_id":"`, r.RequestID)
	buf = appendText(buf, `,"principal":"`, r.Principal)
	buf = appendText(buf, `,"peer":"`, r.Peer)
	buf = appendText(buf, `,"method":"`, r.Method)
	buf = appendText(buf, `,"tenant":"`, r.Tenant)
	buf = appendTexts(buf, `,"scopes":[`, r.Scopes)
	buf = appendTexts(buf, `,"fields":[`, r.Fields)
	buf = appendText(buf, `,"token_id":"`, r.TokenID)
	buf = appendText(buf, `,"rule":"`, r.Rule)
	buf = appendText(buf, `,"outcome":"`, r.Outcome)
	buf = appendText(buf, `,"code":"`, r.Code)
	buf = appendText(buf, `,"reason":"`, r.Reason)

	buf = appendNumber(buf, `,"format":`, uint64(o.Format))
	buf = appendText(buf, `,"host":"`, o.Host)
	buf = appendNumber(buf, `,"torn_bytes":`, uint64(o.TornBytes))
	buf = appendText(buf, `,"torn_sha256":"`, o.TornSHA256)
	buf = appendNumber(buf, `,"dropped":`, o.Dropped)
	buf = appendText(buf, `,"since":"`, o.Since)

	buf = append(buf, `,"prev":"`...)
	buf = append(buf, c.hash[:]...)
	return append(buf, '"')
}
