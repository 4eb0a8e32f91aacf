package redisstore

import "context"

// LoseSecretsIndex does to the index of secrets what an import by a replica of before
// there was one does.
func (s *Store) LoseSecretsIndex(ctx context.Context) error {
	return s.client.Del(ctx, s.secretsKey()).Err()
}
