package access

import (
	"context"
	"errors"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// An agent that ended between a block and the pass over the connections leaves that to the next one.
func TestConnectionsOfTheBlockedAreEndedAfterARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := startEnforcer(t, Options{FlowsInterval: time.Minute}, ACL{}, wanted(t, ACL{}))
		first, all := ACL{SetStopped: keys("192.0.2.1")}, ACL{SetStopped: keys("192.0.2.1"), SetPaused: keys("192.0.2.2")}
		e.want(t, first)
		require.Len(t, e.flows.take(), 1)
		e.want(t, all) // blocked, and its pass is not due before the end
		e.stop()
		require.Equal(t, all, e.kernel.acl())
		require.Empty(t, e.flows.take())

		next := startEnforcer(t, Options{}, e.kernel.acl(), wanted(t, all))
		pass(time.Minute)
		assert.Equal(t, [][]netip.Addr{provisiontest.Addrs("192.0.2.1", "192.0.2.2")}, next.flows.take(), "in one pass")
		next.want(t, first)
		next.Kick()
		pass(time.Minute)
		assert.Empty(t, next.flows.take(), "and not again")
		_, batches := next.kernel.used()
		assert.Equal(t, 1, batches)
	})
}

// doubtfulKernel commits and then fails, as often as fails says.
type doubtfulKernel struct {
	*fakeKernel
	fails atomic.Int64
}

func (k *doubtfulKernel) Apply(ctx context.Context, changes []Change) error {
	if err := k.fakeKernel.Apply(ctx, changes); err != nil || k.fails.Add(-1) < 0 {
		return err
	}
	return errors.New("read the generation: too many open files")
}

// Nor are they forgotten where a batch came through and nobody was told.
func TestConnectionsAreEndedWhereTheOutcomeOfABatchIsUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, flows := &doubtfulKernel{fakeKernel: newFakeKernel(ACL{})}, &fakeFlows{}
		var snap atomic.Pointer[provision.Snapshot]
		snap.Store(wanted(t, ACL{}))
		e := NewEnforcer(Options{}, k, flows, snap.Load, nil, provisiontest.Quiet())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		defer func() { cancel(); require.NoError(t, <-done) }()
		pass(time.Minute)
		require.Empty(t, flows.take())

		k.fails.Store(1)
		snap.Store(wanted(t, ACL{SetPaused: keys("192.0.2.1")}))
		e.Kick()
		pass(time.Minute)
		assert.Zero(t, e.Status().ConsecutiveFailures)
		assert.Equal(t, [][]netip.Addr{provisiontest.Addrs("192.0.2.1")}, flows.take())
		snap.Store(wanted(t, ACL{SetPaused: keys("192.0.2.1", "192.0.2.2")}))
		e.Kick()
		pass(time.Minute)
		assert.Equal(t, [][]netip.Addr{provisiontest.Addrs("192.0.2.2")}, flows.take(), "from then on only the new ones")
	})
}
