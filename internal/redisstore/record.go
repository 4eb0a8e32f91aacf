package redisstore

import (
	"encoding/json"
	"errors"
	"fmt"
)

// errMismatch says that a record opens, but is not of what it is stored under.
var errMismatch = errors.New("record is not what its place says")

// sealRecord encrypts a record for the place called name.
func (s *Store) sealRecord(record any, name string) (string, error) {
	plain, err := json.Marshal(record)
	if err != nil {
		return "", fmt.Errorf("encode record: %w", err)
	}
	sealed, err := s.keyset.Seal(plain, name)
	if err != nil {
		return "", fmt.Errorf("seal record: %w", err)
	}
	return string(sealed), nil
}

// openRecord decrypts what sealRecord made for name, and returns it as it was
// encoded, too. Whether the record is of what was asked for is the caller's to
// check.
func (s *Store) openRecord(sealed, name string, record any) (plain []byte, err error) {
	plain, err = s.keyset.Open([]byte(sealed), name)
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(plain, record) != nil {
		return nil, errMismatch // The reason would quote the record.
	}
	return plain, nil
}
