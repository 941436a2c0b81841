package access

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// What the kernel refuses keeps nobody else waiting: it is told, tried again by itself,
// and taken as soon as the kernel does.
func TestRefusedElementIsTriedAgainByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		states := []provision.State{provision.StateStop}
		bad := addrIn(SetStopped, provisiontest.Addr("192.0.2.2"))
		e := startEnforcer(t, Options{VerifyInterval: time.Hour}, ACL{}, nil)
		e.kernel.do(func() { e.kernel.refuse = map[Element]error{bad: errors.New("no room")} })
		e.snap.Store(hosts(t, states, "192.0.2.1", "192.0.2.2", "192.0.2.3"))
		require.NoError(t, e.Sync(t.Context()), "the round is none that failed")
		synctest.Wait()
		assert.Equal(t, keys("192.0.2.1", "192.0.2.3"), e.kernel.acl()[SetStopped])
		st := e.Status()
		assert.True(t, st.Ready)
		assert.Zero(t, st.ConsecutiveFailures)
		assert.Equal(t, []int{3, 2, 1}, []int{st.WantStopped, st.HaveStopped, st.Pending})
		require.Len(t, st.Refused, 1)
		assert.Equal(t, "the kernel refuses to add stopped 192.0.2.2: no room", st.Refused[0].Text())

		// Others change meanwhile, in a batch of their own.
		before := len(e.kernel.batches)
		e.snap.Store(hosts(t, states, "192.0.2.1", "192.0.2.2", "192.0.2.4"))
		require.NoError(t, e.Sync(t.Context()))
		e.kernel.do(func() {
			for _, batch := range e.kernel.batches[before:] {
				if len(batch) > 1 {
					assert.NotContains(t, batch, Change{provision.OpAdd, bad})
				}
			}
		})
		assert.Equal(t, keys("192.0.2.1", "192.0.2.4"), e.kernel.acl()[SetStopped])

		// A reading finds what it should: somebody else did nothing.
		_, err := e.Verify(t.Context())
		require.NoError(t, err)
		assert.Zero(t, e.Status().DriftMissing)

		// The tries become rare.
		pass(time.Hour)
		e.kernel.do(func() { before = len(e.kernel.batches) })
		pass(10 * maxRetry)
		e.kernel.do(func() { assert.InDelta(t, 10, len(e.kernel.batches)-before, 1) })
		assert.Greater(t, e.Status().Refused[0].Tries, 10)
		e.log.mu.Lock()
		assert.Equal(t, 1, e.log.refused)
		e.log.mu.Unlock()

		e.kernel.do(func() { e.kernel.refuse = nil })
		pass(maxRetry)
		assert.Equal(t, keys("192.0.2.1", "192.0.2.2", "192.0.2.4"), e.kernel.acl()[SetStopped])
		st = e.Status()
		assert.Empty(t, st.Refused)
		assert.Equal(t, []int{3, 3, 0}, []int{st.WantStopped, st.HaveStopped, st.Pending})
	})
}

// One that is not wanted any more is forgotten, and one that is to go stays known.
func TestRefusedElementThatIsNotWantedAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		states := []provision.State{provision.StateStop}
		one, two := addrIn(SetStopped, provisiontest.Addr("192.0.2.1")), addrIn(SetStopped, provisiontest.Addr("192.0.2.2"))
		e := startEnforcer(t, Options{VerifyInterval: time.Hour}, ACL{}, hosts(t, states, "192.0.2.1"))
		synctest.Wait()
		e.kernel.do(func() { e.kernel.refuse = map[Element]error{one: errors.New("stays"), two: errors.New("no room")} })
		e.snap.Store(hosts(t, states, "192.0.2.2", "192.0.2.3"))
		require.NoError(t, e.Sync(t.Context()))
		require.Equal(t, keys("192.0.2.1", "192.0.2.3"), e.kernel.acl()[SetStopped])
		require.Len(t, e.Status().Refused, 2)
		e.snap.Store(hosts(t, states, "192.0.2.3"))
		require.NoError(t, e.Sync(t.Context()))
		st := e.Status()
		require.Len(t, st.Refused, 1)
		assert.Equal(t, "the kernel refuses to remove stopped 192.0.2.1: stays", st.Refused[0].Text())
		assert.Equal(t, 2, st.HaveStopped)
		e.kernel.do(func() { e.kernel.refuse = nil })
		pass(maxRetry)
		assert.Equal(t, keys("192.0.2.3"), e.kernel.acl()[SetStopped])
		assert.Empty(t, e.Status().Refused)
	})
}
