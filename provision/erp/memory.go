package erp

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// Memory is what one ERP said, as far as later reads build on it: of each source the
// last good answer and how it stands. A Memory may be handed from one Fetcher to the
// next one for the same ERP, and over restarts in a file. Safe for concurrent use.
type Memory struct {
	file answersFile // nowhere: nothing is kept over restarts

	mu         sync.Mutex
	sources    map[syncer.SourceName]syncer.SourceStatus
	customers  map[int64]standing
	former     map[int64]bool
	formerRead bool
	leftFormer map[int64]bool // who was in the list before, until nobody is blocked for it any more
	skips      string         // the version of the ERP that look-ups without former customers were proved for
	whole      bool           // a whole fetch filled it
	restored   bool           // that was before the start, and none was made since
	zero       bool           // get_customers_id takes state_id=0 for a condition
	zeroCheck  zeroCheck
	dubious    map[int]bool   // states whose lists the last whole fetch did not believe, but 0
	untold     map[int64]bool // whose cards told no state in the last poll of states; true: and a whole fetch was made since
	statesBad  bool           // the last whole fetch could not read the lists of states, or did not believe them
	reads      uint64
	moved      map[int64]string           // cabling that Moved reported, so that it reports it once
	nets       map[int64][]netip.Prefix   // subnets on the cards that were read
	stale      map[int64]bool             // customers whose cabling must be followed anew
	fresh      bool                       // it began with no row in use, and not every card was asked for yet
	firstRead  map[int64]bool             // whom cards that were read for the first time block, until that is in use
	kept       map[int64]provision.State  // who was blocked before for a reason that nobody could read since
	devices    []device                   // the last good list, and of earlier ones those that lines name
	gone       map[provision.DeviceID]int // fetches in a row in which the ERP had no such device when asked for it alone
	round      cardRound

	deviceTurns map[provision.DeviceID]int  // how often one that the list lacks was asked for alone, or was to be; not over restarts
	heldDevices []provision.DeviceID        // whom the list that is held takes something from
	heldPrint   string                      // of that
	accepted    map[provision.DeviceID]bool // of which an operator accepted that the list lacks or changes them

	changed bool      // the file is behind
	savedAt time.Time // of the file
}

// cardRound is the reading of all cards once, which may take many fetches.
type cardRound struct {
	began time.Time
	mark  uint64        // Memory.reads then
	good  time.Time     // when the one before began: no card is older; zero: there was none
	last  time.Duration // how long that took; 0: all cards were read in one fetch, or there was none
}

// standing is what is known of one customer.
type standing struct {
	read    uint64 // when the card was read, by Memory.reads; 0: never
	stateID int32
	flags   provision.Flags // of the card; Former stands in Memory.former
}

// NewMemory returns an empty Memory.
func NewMemory() *Memory {
	return &Memory{
		sources:   make(map[syncer.SourceName]syncer.SourceStatus),
		customers: make(map[int64]standing), former: make(map[int64]bool), leftFormer: make(map[int64]bool),
		nets: make(map[int64][]netip.Prefix), moved: make(map[int64]string), stale: make(map[int64]bool),
		firstRead: make(map[int64]bool), kept: make(map[int64]provision.State), gone: make(map[provision.DeviceID]int), accepted: make(map[provision.DeviceID]bool),
		deviceTurns: make(map[provision.DeviceID]int),
	}
}

// cardFlags returns the flags that get_data tells. One that the card leaves out is
// not read: the ERP often leaves out is_potential.
func cardFlags(c *userside.Customer) provision.Flags {
	flag := func(set, value bool) provision.Flag {
		switch {
		case !set:
			return provision.FlagUnread
		case value:
			return provision.FlagYes
		}
		return provision.FlagNo
	}
	return provision.Flags{
		Disabled:     flag(c.Disabled.Set, c.Disabled.Value),
		Potential:    flag(c.Potential.Set, c.Potential.Value),
		NotInBilling: flag(c.InBilling.Set, !c.InBilling.Value),
	}
}

// noStateID stands for a state_id that was not read; to a Policy every negative number does.
const noStateID = -1

// stateID returns the number of get_data, noStateID if it tells none.
func stateID(n userside.Int) int {
	if !n.Set || n.Value < 0 || n.Value > 1<<30 {
		return noStateID
	}
	return int(n.Value)
}

// card notes the card of a customer and gives what is now known.
func (m *Memory) card(c *userside.Customer, nets []netip.Prefix) (int, provision.Flags) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, known := m.customers[c.ID]
	if !known {
		s.stateID = noStateID
	}
	if n := stateID(c.State); n != noStateID {
		s.stateID = int32(n)
	}
	old := s
	s.flags = cardFlags(c)
	keepBlocking(&s.flags, old.flags)
	m.reads++
	s.read = m.reads
	m.customers[c.ID] = s
	delete(m.kept, c.ID)
	m.changed = m.changed || !known || old.read == 0 || s.flags != old.flags || s.stateID != old.stateID || !slices.Equal(m.nets[c.ID], nets)
	if delete(m.nets, c.ID); len(nets) > 0 {
		m.nets[c.ID] = nets
	}
	return int(s.stateID), m.flagsLocked(c.ID)
}

// keepBlocking lets those flags stand that a card always tells and this one leaves out, if they block: a card
// of which a part is missing opens nobody. is_potential is often left out by cards that are whole.
func keepBlocking(now *provision.Flags, was provision.Flags) {
	for _, f := range []struct {
		now *provision.Flag
		was provision.Flag
	}{{&now.Disabled, was.Disabled}, {&now.NotInBilling, was.NotInBilling}} {
		if *f.now == provision.FlagUnread && f.was == provision.FlagYes {
			*f.now = provision.FlagYes
		}
	}
}

func (m *Memory) flags(id int64) provision.Flags {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.flagsLocked(id)
}

// state returns what a customer with a state_id may do, by a policy and what is known of the customer beside that.
func (m *Memory) state(policy *provision.Policy, id int64, n int) provision.State {
	m.mu.Lock()
	defer m.mu.Unlock()
	st := policy.State(n, m.flagsLocked(id))
	if kept := m.kept[id]; kept.Blocks() && st != provision.StateStop {
		return kept
	}
	return st
}

func (m *Memory) flagsLocked(id int64) provision.Flags {
	f := m.customers[id].flags
	if m.formerRead {
		f.Former = provision.FlagNo
		if m.former[id] {
			f.Former = provision.FlagYes
		}
	}
	return f
}

// number returns the state_id of a customer as it was read last; known is false if it was not.
func (m *Memory) number(id int64) (n int, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s, known := m.customers[id]
	return int(s.stateID), known && s.stateID != noStateID
}

// keep notes who stays blocked for a reason that could not be read; it replaces those of before.
func (m *Memory) keep(blocked map[int64]provision.State) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = m.changed || !maps.Equal(m.kept, blocked)
	m.kept = blocked
}

// keeps reports whether a customer stays blocked for a reason that could not be read.
func (m *Memory) keeps(id int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.kept[id].Blocks()
}

// lastRead says when a customer's card was read; 0: never. Only the order means something.
func (m *Memory) lastRead(id int64) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.customers[id].read
}

// setFormer takes the list of former customers.
func (m *Memory) setFormer(ids []int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	former := make(map[int64]bool, len(ids))
	for _, id := range ids {
		former[id] = true
	}
	m.changed = m.changed || !m.formerRead || !maps.Equal(m.former, former)
	for id := range m.former {
		m.leftFormer[id] = true
	}
	for id := range former {
		delete(m.leftFormer, id)
	}
	m.former, m.formerRead = former, true
}

// formerOnes returns the former customers of the last good list; known is false if there was none.
func (m *Memory) formerOnes() (former map[int64]bool, known bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.former), m.formerRead
}

// remember takes the numbers that a whole fetch found. Customers that it did
// not find, and that are none of those who keep their states, are forgotten.
func (m *Memory) remember(numbers map[int64]int, kept map[int64]provision.State, zero bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id := range m.customers {
		_, told := numbers[id]
		if _, keeps := kept[id]; !told && !keeps {
			delete(m.customers, id)
			delete(m.nets, id)
			delete(m.kept, id)
			m.changed = true
		}
	}
	m.setNumbersLocked(numbers)
	for id := range m.moved {
		if _, ok := numbers[id]; !ok {
			delete(m.moved, id)
		}
	}
	m.changed = m.changed || !m.whole || m.zero != zero
	m.whole, m.zero, m.restored = true, zero, false
	for id := range m.untold {
		m.untold[id] = true
	}
}

// setStates takes the numbers of a poll of states.
func (m *Memory) setStates(numbers map[int64]int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setNumbersLocked(numbers)
}

func (m *Memory) setNumbersLocked(numbers map[int64]int) {
	for id, n := range numbers {
		s, known := m.customers[id]
		if known && s.stateID == int32(n) {
			continue
		}
		s.stateID = int32(n)
		m.customers[id] = s
		m.changed = true
	}
}

// prior returns the number of every known customer, whether state 0 can be listed,
// and whether a whole fetch was made at all.
func (m *Memory) prior() (numbers map[int64]int, zero, whole bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.whole {
		return nil, false, false
	}
	numbers = make(map[int64]int, len(m.customers))
	for id, s := range m.customers {
		numbers[id] = int(s.stateID)
	}
	return numbers, m.zero, true
}

// fromBefore reports whether no whole fetch was made since the start: what is known is from a file, which may be some
// seconds older or newer than the stored snapshot.
func (m *Memory) fromBefore() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.restored
}

// judgesStates notes what a fetch thinks of the lists of states, and reports whether its judgement counts.
func (m *Memory) judgesStates(whole, good bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if whole {
		m.statesBad = !good
	}
	return whole || !good || !m.statesBad
}

// newlyMoved notes the cabling of a customer that differs from the snapshot; it
// gives false if the same was noted before.
func (m *Memory) newlyMoved(id int64, cabling string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.moved[id] == cabling {
		return false
	}
	m.moved[id] = cabling
	m.stale[id] = true
	return true
}

// setDubious notes of which states a whole fetch did not believe the lists.
func (m *Memory) setDubious(states map[int]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dubious = states
}

// doubts reports whether the last whole fetch did not believe the list of a state.
func (m *Memory) doubts(n int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dubious[n]
}

// setUntold notes who is in no list and whose card tells no state, and reports whether no whole fetch was made for one of them.
func (m *Memory) setUntold(ids []int64) (others bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	untold := make(map[int64]bool, len(ids))
	for _, id := range ids {
		untold[id] = m.untold[id]
		others = others || !untold[id]
	}
	m.untold = untold
	return others
}

// untoldOf returns who of some customers was asked for in vain also by a whole fetch, and who was not.
func (m *Memory) untoldOf(ids []int64) (before, fresh []int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, id := range ids {
		if m.untold[id] {
			before = append(before, id)
		} else {
			fresh = append(fresh, id)
		}
	}
	return before, fresh
}

// takeStale returns the customers whose cabling must be followed anew.
func (m *Memory) takeStale() map[int64]bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.stale
	m.stale = make(map[int64]bool)
	return out
}
