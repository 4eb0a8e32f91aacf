package redisstore

import (
	"context"
	"fmt"
	"strings"
	"time"

	"smokeball.internal/tokenbroker/internal/secret"
	"smokeball.internal/tokenbroker/internal/token"
)

// tokenRecord is a sealed token. It names the credential it was bought with, and
// times only as spans: the end is Redis's to keep (PTTL).
type tokenRecord struct {
	Key           token.Key `json:"key"`
	AccessToken   string    `json:"access_token"`
	Scopes        []string  `json:"scopes,omitempty"`
	LifeMS        int64     `json:"life_ms"`
	RefreshLeftMS int64     `json:"refresh_left_ms"`    // what is left of the life when the refresh is due
	Replaced      string    `json:"replaced,omitempty"` // the id of a rejected token
}

// failureRecord is a sealed failure.
type failureRecord struct {
	Key     token.Key   `json:"key"`
	Class   token.Class `json:"class"`
	Message string      `json:"message"`
	Streak  int         `json:"streak"`
}

// Load returns the token and the failure kept under k; nil for what there is
// not. A record that cannot be opened counts as missing and is reported to the
// log. An error means that Redis could not be asked.
func (s *Store) Load(ctx context.Context, k token.Key) (*token.Token, *token.Failure, error) {
	asked := time.Now()
	reply, err := loadScript.Run(ctx, s.client, []string{s.tokenKey(k), s.failureKey(k)}).Slice()
	if err != nil {
		return nil, nil, fmt.Errorf("load token: %w", err)
	}
	s.readClock(k, reply[4])
	t, f := s.openKept(ctx, k, reply, asked)
	return t, f, nil
}

// openKept opens what load.lua has returned.
func (s *Store) openKept(ctx context.Context, k token.Key, reply []any, asked time.Time) (t *token.Token, f *token.Failure) {
	var err error
	if record, left, ok := valueAndTTL(reply[0], reply[1]); ok {
		if t, err = s.openToken(k, record, asked, left); err != nil {
			s.log.ErrorContext(ctx, "stored token refused", "key", s.tokenKey(k), "error", err)
		}
	}
	if record, left, ok := valueAndTTL(reply[2], reply[3]); ok {
		if f, err = s.openFailure(k, record, asked.Add(left)); err != nil {
			s.log.ErrorContext(ctx, "stored failure refused", "key", s.failureKey(k), "error", err)
		}
	}
	return t, f
}

// Save keeps t under k until it expires, unless a newer token is there, and
// forgets the failure under k. The same token is not kept for longer than it was. One
// that is new counts as an exchange. It announces and returns the token that is kept then. A token without a future
// is not kept.
func (s *Store) Save(ctx context.Context, k token.Key, t *token.Token) (*token.Token, error) {
	asked := time.Now()
	left := t.Expires.Sub(asked).Milliseconds()
	if left <= 0 {
		return t, nil
	}
	sealed, err := s.sealRecord(tokenRecord{
		k, t.AccessToken.Reveal(), t.Scopes, t.Lifetime().Milliseconds(), t.Expires.Sub(t.RefreshAt).Milliseconds(), t.Replaced,
	}, s.tokenKey(k))
	if err != nil {
		return nil, fmt.Errorf("save token: %w", err)
	}
	record := fmt.Sprintf("%s.%d.%s", t.ID, t.Lifetime().Milliseconds(), sealed)
	reply, err := saveScript.Run(ctx, s.client, []string{s.tokenKey(k), s.failureKey(k), s.exchangesKey(k)},
		t.ID, t.Lifetime().Milliseconds(), left, record, s.serverTime(k, asked), t.Replaced).Slice()
	if err != nil {
		return nil, fmt.Errorf("save token: %w", err)
	}
	kept := t
	if stored, keptLeft, ok := valueAndTTL(reply[0], reply[1]); ok && (stored != record || reply[2] == int64(1)) {
		if kept, err = s.openToken(k, stored, asked, keptLeft); err != nil {
			return nil, fmt.Errorf("save token: the one that is stored: %w", err)
		}
	}
	s.announce(ctx, "token", k.Digest(), "id", kept.ID)
	return kept, nil
}

// SaveFailure keeps f under k until f.RetryAt, counts the exchange, and announces it.
func (s *Store) SaveFailure(ctx context.Context, k token.Key, f *token.Failure) error {
	left := time.Until(f.RetryAt)
	if left < time.Millisecond {
		return nil
	}
	sealed, err := s.sealRecord(failureRecord{k, f.Class, f.Message, f.Streak}, s.failureKey(k))
	if err != nil {
		return fmt.Errorf("save failure: %w", err)
	}
	if err := failScript.Run(ctx, s.client, []string{s.failureKey(k), s.exchangesKey(k)}, sealed, left.Milliseconds()).Err(); err != nil {
		return fmt.Errorf("save failure: %w", err)
	}
	s.announce(ctx, "token", k.Digest(), "id", "")
	return nil
}

// openToken opens a record that had this much left when it was asked for.
func (s *Store) openToken(k token.Key, record string, asked time.Time, left time.Duration) (t *token.Token, err error) {
	defer count(&s.refusals.tokens, &err)
	r, _, err := s.unsealToken(s.tokenKey(k), record)
	if err != nil {
		return nil, err
	}
	accessToken := secret.New(r.AccessToken)
	life := time.Duration(r.LifeMS) * time.Millisecond
	if r.Key != k || left > life {
		return nil, errMismatch
	}
	expires := asked.Add(left)
	return &token.Token{
		ID:          token.ID(accessToken),
		AccessToken: accessToken,
		Scopes:      r.Scopes,
		Issued:      expires.Add(-life),
		Expires:     expires,
		RefreshAt:   expires.Add(-time.Duration(r.RefreshLeftMS) * time.Millisecond),
		Replaced:    r.Replaced,
	}, nil
}

// unsealToken opens what is kept under the Redis key, and checks that what stands
// before it is of the same token. Whose it is remains to be checked.
func (s *Store) unsealToken(key, record string) (r tokenRecord, plain []byte, err error) {
	header, sealed, ok := cutTwo(record)
	if !ok {
		return r, nil, errMismatch
	}
	if plain, err = s.openRecord(sealed, key, &r); err != nil {
		return r, nil, err
	}
	if header != fmt.Sprintf("%s.%d", token.ID(secret.New(r.AccessToken)), r.LifeMS) {
		return r, nil, errMismatch
	}
	return r, plain, nil
}

func (s *Store) openFailure(k token.Key, sealed string, retryAt time.Time) (f *token.Failure, err error) {
	defer count(&s.refusals.failures, &err)
	r, _, err := s.unsealFailure(s.failureKey(k), sealed)
	if err != nil {
		return nil, err
	}
	if r.Key != k {
		return nil, errMismatch
	}
	return &token.Failure{Class: r.Class, Message: r.Message, Streak: r.Streak, RetryAt: retryAt}, nil
}

func (s *Store) unsealFailure(key, sealed string) (r failureRecord, plain []byte, err error) {
	plain, err = s.openRecord(sealed, key, &r)
	return r, plain, err
}

// valueAndTTL reads a string and a PTTL of a script's reply. A value that has no
// TTL is none of ours and not believed.
func valueAndTTL(value, ttl any) (string, time.Duration, bool) {
	v, ok := value.(string)
	ms, ok2 := ttl.(int64)
	return v, time.Duration(ms) * time.Millisecond, ok && ok2 && ms > 0
}

// cutTwo splits a record behind its second dot.
func cutTwo(record string) (header, sealed string, ok bool) {
	first := strings.IndexByte(record, '.')
	second := strings.IndexByte(record[first+1:], '.')
	if first < 0 || second < 0 {
		return "", "", false
	}
	return record[:first+1+second], record[first+second+2:], true
}
