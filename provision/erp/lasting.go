package erp

// lasting is a reason of polls of states to ask for a whole fetch that it may not mend.
type lasting uint8

const (
	devicesUnread     lasting = iota // the list of switches was never read
	twoListsUnread                   // nobody can tell the state of customers in two lists
	listsContradicted                // cards tell otherwise than the lists
)

// fetchesFor counts, while a reason holds.
type fetchesFor struct {
	whole int // whole fetches that did not mend it
	polls int // polls of states since the last of them
}

// again reports whether a poll of states is to ask for a whole fetch for a reason, if that holds: at the first poll, and after
// each whole fetch that did not mend it at twice as many as before. Until then the fetch of refresh_interval comes.
func (f *Fetcher) again(why lasting, holds bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !holds {
		delete(f.asks, why)
		return false
	}
	n := f.asks[why]
	n.polls++
	f.asks[why] = n
	return n.polls >= 1<<min(n.whole, 20)
}

// wholeFetched notes that a whole fetch was made.
func (f *Fetcher) wholeFetched() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for why, n := range f.asks {
		f.asks[why] = fetchesFor{whole: n.whole + 1}
	}
}
