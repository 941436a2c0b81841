package lease

import (
	"net/netip"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision"
)

// memoryStore is a Store without a disk.
type memoryStore struct {
	mu      sync.Mutex
	leases  map[netip.Addr]Record
	reports map[netip.Addr]provision.MACReport
	closed  bool
}

// OpenMemory opens a store that is lost with the process. It is for tests: what an agent commits to it would count as being on disk.
func OpenMemory() Store {
	return &memoryStore{leases: map[netip.Addr]Record{}, reports: map[netip.Addr]provision.MACReport{}}
}

// Leases implements Store.
func (s *memoryStore) Leases(each func(Record, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.leases {
		each(r, nil)
	}
	return nil
}

// Reports implements Store.
func (s *memoryStore) Reports(each func(provision.MACReport, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.reports {
		each(r, nil)
	}
	return nil
}

// Replaced implements Store.
func (s *memoryStore) Replaced(func()) {}

// Commit implements Store.
func (s *memoryStore) Commit(fill func(*Batch) error) error {
	var b Batch
	s.mu.Lock()
	err := fill(&b)
	if s.closed {
		err = notYet(errClosed)
	}
	if err == nil {
		s.take(&b)
	}
	s.mu.Unlock()
	if err != nil {
		return err
	}
	for _, f := range b.after {
		f()
	}
	return nil
}

func (s *memoryStore) take(b *Batch) {
	for _, r := range b.Leases {
		s.leases[r.IP] = r
	}
	for _, ip := range b.Forget {
		delete(s.leases, ip)
	}
	now := time.Now()
	for _, r := range b.Reports {
		if kept, ok := s.reports[r.IP]; !ok || !kept.Outranks(r, now) {
			s.reports[r.IP] = r
		}
	}
	for _, r := range b.Done {
		if kept, ok := s.reports[r.IP]; ok && sameReport(kept, r) {
			delete(s.reports, r.IP)
		}
	}
}

// Failing implements Store.
func (s *memoryStore) Failing() bool { return false }

// Health implements Store.
func (s *memoryStore) Health() Health { return Health{} }

// Close implements Store.
func (s *memoryStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}
