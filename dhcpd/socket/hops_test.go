package socket

import (
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// fakeHops has resolved what begins with 10, unless it is lost.
type fakeHops struct {
	mu    sync.Mutex
	lost  bool
	asked int
}

func (f *fakeHops) resolved(t target) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	return t.addr[0] == 10 && !f.lost
}

func (f *fakeHops) close() {}

func numbered(first byte, i int) (t target) {
	binary.BigEndian.PutUint32(t.addr[:], uint32(first)<<24|uint32(i))
	return t
}

func newHops(t *testing.T, k resolver) *hops {
	h := &hops{wake: make(chan struct{}, 1), quit: make(chan struct{})}
	done := make(chan struct{})
	go func() { h.run(k); close(done) }()
	t.Cleanup(func() { h.close(); <-done })
	return h
}

func TestNextHopIsProvedAndForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &fakeHops{}
		h := newHops(t, k)
		there, gone := numbered(10, 1), numbered(11, 1)
		assert.False(t, h.proved(there))
		assert.False(t, h.proved(gone))
		synctest.Wait()
		time.Sleep(2 * askPause)
		assert.True(t, h.proved(there))
		assert.False(t, h.proved(gone))
		time.Sleep(time.Minute)
		assert.True(t, h.proved(there), "also without packets")
		k.mu.Lock()
		k.lost = true
		k.mu.Unlock()
		time.Sleep(hopTick + time.Millisecond)
		assert.False(t, h.proved(there), "the kernel has lost it")
		k.mu.Lock()
		k.lost = false
		k.mu.Unlock()
		time.Sleep(hopTick)
		require.True(t, h.proved(there))
		time.Sleep((hopUnused + 2) * hopTick)
		assert.False(t, h.proved(there), "nobody has sent to it for long")
	})
}

// Made-up next hops, there or not, take neither the place of one that is used nor the time of the machine.
func TestMadeUpNextHopsAreBounded(t *testing.T) {
	for name, first := range map[string]byte{"nobody has them": 11, "behind a router that is there": 10} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &fakeHops{}
				h := newHops(t, k)
				honest := numbered(10, 1<<20)
				h.proved(honest)
				time.Sleep(2 * askPause)
				begin := time.Now()
				missed := 0
				for i := range 200_000 {
					h.proved(numbered(first, i))
					if i%100 == 0 {
						time.Sleep(time.Millisecond)
						if !h.proved(honest) {
							missed++
						}
					}
				}
				assert.LessOrEqual(t, missed, 20, "of 2000")
				k.mu.Lock()
				defer k.mu.Unlock()
				looks := time.Since(begin)/askPause*maxAsked + time.Since(begin)/hopTick*maxChecked
				assert.LessOrEqual(t, k.asked, int(looks)+2*maxAsked)
			})
		})
	}
}

func TestProvedAllocatesNothing(t *testing.T) {
	h := &hops{wake: make(chan struct{}, 1)}
	h.prove(numbered(10, 1))
	i := 0
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		h.proved(numbered(10, 1))
		h.proved(numbered(11, i))
		i++
	}))
}
