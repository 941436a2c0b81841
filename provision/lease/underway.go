package lease

import (
	"sync"
	"sync/atomic"
	"time"
)

// patience is how long nothing may come of the commits that are under way before the disk counts as failing. An ACK of a pool that
// waits longer is not sent any more.
const patience = 3 * time.Second

// NoAnswer is the Error of a Health whose disk hangs: it neither takes a commit nor gives an error.
const NoAnswer = "a write is under way for more than 3 s: the disk does not answer"

// underway tells whether the commits that are under way get on. It does not ask the disk, which may hold for ever whoever does.
type underway struct {
	made time.Time

	mu sync.Mutex
	n  int // commits under way
	// When the first of them began, or another one ended since, in nanoseconds since made; 0: none is under way.
	moved atomic.Int64
}

func (u *underway) now() int64 { return max(int64(time.Since(u.made)), 1) }

func (u *underway) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n++; u.n == 1 {
		u.moved.Store(u.now())
	}
}

func (u *underway) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.n--; u.n == 0 {
		u.moved.Store(0)
	} else {
		u.moved.Store(u.now())
	}
}

// stuck returns since when nothing has come of commits, if that is longer than patience.
func (u *underway) stuck() (since time.Time, yes bool) {
	moved := u.moved.Load()
	if moved == 0 || u.now()-moved <= int64(patience) {
		return time.Time{}, false
	}
	return u.made.Add(time.Duration(moved)), true
}
