package audit

import (
	"os"
	"os/user"
	"strconv"
	"time"
)

// nameLimit is how long the name of a user may be looked for.
const nameLimit = 200 * time.Millisecond

// Names finds the names of users. A directory service that hangs costs each
// caller nameLimit, and all of them one goroutine.
type Names struct {
	find func(uid string) (string, error)
	slot chan struct{} // taken by the one that asks
}

// NewNames returns what asks the host.
func NewNames() *Names {
	return newNames(func(uid string) (string, error) {
		u, err := user.LookupId(uid)
		if err != nil {
			return "", err
		}
		return u.Username, nil
	})
}

func newNames(find func(string) (string, error)) *Names {
	return &Names{find: find, slot: make(chan struct{}, 1)}
}

// Of returns the name of a user; empty if there is none, or none in time.
func (n *Names) Of(uid uint32) string {
	late := time.NewTimer(nameLimit)
	defer late.Stop()
	select {
	case n.slot <- struct{}{}:
	case <-late.C:
		return ""
	}
	found := make(chan string, 1)
	go func() {
		defer func() { <-n.slot }()
		name, _ := n.find(strconv.FormatUint(uint64(uid), 10)) // who has no name has none
		found <- name
	}()
	select {
	case name := <-found:
		return name
	case <-late.C:
		return ""
	}
}

// Self returns this process, for a command.
func Self() *Process {
	uid := uint32(os.Getuid())
	return &Process{UID: uid, GID: uint32(os.Getgid()), PID: int32(os.Getpid()), User: NewNames().Of(uid)}
}
