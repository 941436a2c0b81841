package access

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// slowKernel has so many elements that no reading ends in time.
type slowKernel struct {
	*fakeKernel
	reads, replaced atomic.Int64
}

func (k *slowKernel) Observe(context.Context) (ACL, error) {
	k.reads.Add(1)
	return ACL{}, fmt.Errorf("read elements of set bound_direct_32: %w", os.ErrDeadlineExceeded)
}

func (k *slowKernel) Replace(_ context.Context, want ACL) error {
	k.replaced.Add(1)
	k.do(func() { k.sets, k.foreign = newKernelModel(want), false })
	return nil
}

// Where reading back takes longer than a round may, blocks hold all the same, and so does every later change.
func TestWhatCannotBeReadInTimeIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &slowKernel{fakeKernel: newFakeKernel(ACL{SetStopped: keys("192.0.2.9")})}
		var snap atomic.Pointer[provision.Snapshot]
		first, next := ACL{SetPaused: keys("192.0.2.1")}, ACL{SetPaused: keys("192.0.2.1", "192.0.2.2")}
		snap.Store(snapshotOf(t, first, provision.SourceDirect))
		e := NewEnforcer(Options{VerifyInterval: time.Second}, k, nil, snap.Load, nil, provisiontest.Quiet())
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		defer func() { cancel(); require.NoError(t, <-done) }()
		pass(time.Second)
		assert.Empty(t, cmp.Diff(first, k.acl(), cmpAddr), "what was there is gone, too")
		assert.Zero(t, e.Status().ConsecutiveFailures)
		assert.True(t, e.Status().Ready)

		snap.Store(snapshotOf(t, next, provision.SourceDirect))
		require.NoError(t, e.Sync(t.Context()))
		pass(9 * time.Minute)
		assert.Empty(t, cmp.Diff(next, k.acl(), cmpAddr))
		assert.Equal(t, [2]int64{1, 1}, [2]int64{k.reads.Load(), k.replaced.Load()}, "nor is it read every second from then on")

		k.do(func() { k.sets, k.foreign = newKernelModel(ACL{}), true })
		pass(time.Minute)
		assert.Empty(t, cmp.Diff(next, k.acl(), cmpAddr), "what somebody else does is mended")
	})
}
