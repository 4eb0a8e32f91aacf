package main

import (
	"context"
	"fmt"
	"sync"

	"smokeball.internal/tokenbroker/internal/ops"
)

// judgeTokens finds out whether callers get tokens here. Redis has to be reached
// once. From then on it may be away: there are tokens in memory, and the issuer. If
// every replica stopped serving when Redis does, Redis would be missed by everybody.
func (s *service) judgeTokens() ops.Readiness {
	reached := sync.OnceFunc(func() { close(s.reached) })
	return ops.Readiness{
		Once: []ops.Condition{s.redisAnswers, s.keysetFits}, Always: []ops.Condition{s.changesAreHeard, s.decisionsAreRecorded},
		Logger: s.log.With("service", "TokenService"),
		Change: func(why string) {
			s.ops.NotReady(why)
			s.api.SetServing(why == "")
			s.tellSystemd(systemdState(why))
			if why == "" {
				reached()
			}
		},
	}
}

// judgeTenants finds out whether administrators are served here, who cannot be
// without Redis and the audit log.
func (s *service) judgeTenants() ops.Readiness {
	return ops.Readiness{
		Once: []ops.Condition{s.redisAnswers, s.keysetFits}, Always: []ops.Condition{s.redisAnswers, s.changesAreRecorded},
		Logger: s.log.With("service", "TenantService"),
		Change: func(why string) {
			s.ops.NotAdministering(why)
			s.api.SetAdministering(why == "")
		},
	}
}

func (s *service) redisAnswers(ctx context.Context) (why string, behind error) {
	if err := s.store.Ping(ctx); err != nil {
		return "Redis does not serve", err
	}
	return "", nil
}

// keysetFits keeps a replica with another keyset than the fleet's from taking the
// place of one that works.
func (s *service) keysetFits(ctx context.Context) (why string, behind error) {
	switch tried, readable, err := s.store.Readable(ctx); {
	case err != nil:
		return "the records of tenants cannot be read from Redis", err
	case tried > 0 && readable == 0:
		return fmt.Sprintf("the keyset opens none of the %d records of tenants that were tried: it is not the one that they are sealed with; restart with that one", tried), nil
	}
	return "", nil
}

func (s *service) changesAreHeard(context.Context) (why string, behind error) {
	if s.broker.Stats().Deaf {
		return "Redis was not heard for --max-staleness: tenants in memory are not served any more", nil
	}
	return "", nil
}

func (s *service) decisionsAreRecorded(context.Context) (why string, behind error) {
	if s.auditStrict && s.audit.Stats().Full {
		return "the audit log cannot be written, and --audit-strict has tokens refused", nil
	}
	return "", nil
}

func (s *service) changesAreRecorded(context.Context) (why string, behind error) {
	if s.audit.Stats().Stuck {
		return "the audit log cannot be written, so that changes of tenants are refused", nil
	}
	return "", nil
}
