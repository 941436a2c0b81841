package lease

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/provisiontest"
)

// brokenStore has much to tell, fails at it, and tells all the same later.
type brokenStore struct {
	Store
	tell func(Record, error)
}

func (s *brokenStore) Health() (h Health) {
	h.Log.Bytes = 10 * mostAtOnce * bytesOfRecord
	return h
}

func (s *brokenStore) Leases(f func(Record, error)) error {
	s.tell = f
	return errors.New("broken")
}

func (s *brokenStore) Replaced(func()) {}

// Whoever is told after an Open that failed waits for no memory that nobody makes any more.
func TestFailedOpenHoldsNobody(t *testing.T) {
	s := &brokenStore{}
	_, err := Open(s)
	require.ErrorContains(t, err, "broken")
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.tell(Record{IP: provisiontest.Addr("192.0.2.1"), MAC: provision.MAC{2}}, nil)
	}()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("it waits")
	}
}
