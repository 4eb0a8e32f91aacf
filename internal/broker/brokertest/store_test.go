package brokertest_test

import (
	"testing"
	"testing/synctest"

	"smokeball.internal/tokenbroker/internal/broker/brokertest"
)

func TestTheStoreInMemoryIsOneToRelyOn(t *testing.T) {
	brokertest.TestStore(t, func(t *testing.T, test func(*testing.T, brokertest.Shared)) {
		synctest.Test(t, func(t *testing.T) {
			s := &brokertest.Store{}
			test(t, brokertest.Shared{One: s, Two: s, Listen: s.Listen})
		})
	})
}
