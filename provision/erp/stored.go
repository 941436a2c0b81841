package erp

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/statedir"
	"github.com/usher-agent/usher/provision/syncer"
)

// The file of a Memory has what the stored snapshot does not: whose flags were read and what they said, who is a former
// customer, the number of everybody's state, by which states are polled before the first whole fetch, the names of switches' ports, and when each source was good. Its first line is "usher erp answers 1 CRC", the
// CRC-32C of all that follows in hexadecimal; then comes JSON. In every version the first line is such a one, so
// that a file of a newer version is told from a damaged one.
const (
	answersMagic   = "usher erp answers"
	answersVersion = 1
	// maxAnswers bounds what follows the first line; what is larger is damage. A customer takes at most 108 bytes, or 285 with eight
	// subnets, and 40 in the two lists of former ones; a switch of 52 ports with long names 2,800. A million customers, all with
	// subnets and all former, 24 on a switch, are 442 MB.
	maxAnswers = 1 << 30
	// saveUnchanged is how old the times in the file may get while nothing else changes.
	saveUnchanged = 10 * time.Minute
)

// answersFile is where a Memory is kept; the zero one is nowhere.
type answersFile struct {
	path string
	erp  string // which ERP said it: a hash of its URL
}

// stored is the content of the file.
type stored struct {
	ERP       string                `json:"erp"`
	Sources   []syncer.SourceStatus `json:"sources"`
	Devices   []device              `json:"devices"`
	Accepted  []provision.DeviceID  `json:"accepted_devices,omitempty"` // by an operator, as missing
	Customers []storedCustomer      `json:"customers"`
	Former    []int64               `json:"former"`
	Left      []int64               `json:"left_former,omitempty"`  // who is in that list no more, and still blocked
	Skips     string                `json:"skips_former,omitempty"` // the version of the ERP whose look-ups are known to leave them out
	Reads     uint64                `json:"reads"`
	Whole     bool                  `json:"whole,omitempty"` // states can be polled by this
	Zero      bool                  `json:"zero,omitempty"`  // and with state_id=0
	ZeroCheck *zeroCheck            `json:"state_zero,omitempty"`
	Fresh     bool                  `json:"fresh,omitempty"` // the first cards of a new installation are being read
}

// storedCustomer is what is known of one customer.
type storedCustomer struct {
	ID      int64          `json:"id"`
	StateID int32          `json:"state_id"`
	Read    uint64         `json:"read,omitempty"` // when the card was read, in the order of reads; 0: never
	Flags   [3]int         `json:"flags,omitzero"` // disabled, potential, not in the billing: 0 not read, 1 no, 2 yes
	Nets    []netip.Prefix `json:"nets,omitempty"` // subnets on the card
	// Kept is the state of one who stays blocked for a reason that could not be read since.
	Kept provision.State `json:"kept,omitzero"`
}

// Identity returns which ERP is at a URL, for what is kept of it: a hash, since a URL may have secrets.
func Identity(url string) string {
	sum := sha256.Sum256([]byte(url))
	return hex.EncodeToString(sum[:8])
}

// OpenMemory returns what the file at path has of the ERP at url, an empty Memory where there is no file or it is of
// another ERP. The Memory writes the same file. A damaged file is put aside (statedir.PutAside) and the error says why;
// the Memory is then empty and of use all the same. One that a newer usher wrote is a *statedir.NewerError.
func OpenMemory(path, url string) (*Memory, error) {
	m := NewMemory()
	m.file = answersFile{path, Identity(url)}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, fmt.Errorf("what the ERP said before: %w", err)
	}
	defer f.Close()
	s, err := readAnswers(f, path)
	switch {
	case errors.As(err, new(*statedir.NewerError)):
		return m, err
	case err != nil:
		return m, statedir.PutAside(path, fmt.Errorf("what the ERP said before, %s: %w", path, err))
	case s.ERP == m.file.erp:
		m.restore(s)
	}
	return m, nil
}

func readAnswers(f *os.File, path string) (*stored, error) {
	version, body, err := statedir.ReadSummed(f, answersMagic, maxAnswers)
	if err != nil {
		return nil, err
	}
	if version > answersVersion {
		return nil, &statedir.NewerError{Path: path, Has: fmt.Sprintf("format %d of the ERP's answers", version), Knows: fmt.Sprint(answersVersion),
			Lost: "who is disabled, potential or a former customer until the ERP tells"}
	}
	s := &stored{}
	if err := json.Unmarshal(body, s); err != nil {
		return nil, err
	}
	return s, nil
}

// restore takes over what was stored. Nobody asked the ERP since the start, so no source is judged yet.
func (m *Memory) restore(s *stored) {
	for _, st := range s.Sources {
		m.sources[st.Source] = syncer.SourceStatus{Source: st.Source, Judgement: syncer.JudgedUnread, GoodAt: st.GoodAt, Rows: st.Rows}
		m.formerRead = m.formerRead || st.Source == syncer.SourceFormer && !st.GoodAt.IsZero()
	}
	for _, id := range s.Accepted {
		m.accepted[id] = true
	}
	names := make(map[string]string)
	for _, d := range s.Devices {
		for i := range d.Ports {
			d.Ports[i].Name = oneCopy(names, d.Ports[i].Name)
		}
		m.devices = append(m.devices, d)
	}
	for i := range s.Customers {
		c := &s.Customers[i]
		m.customers[c.ID] = standing{stateID: c.StateID, read: c.Read, flags: provision.Flags{
			Disabled: provision.Flag(c.Flags[0]), Potential: provision.Flag(c.Flags[1]), NotInBilling: provision.Flag(c.Flags[2]),
		}}
		if len(c.Nets) > 0 {
			m.nets[c.ID] = c.Nets
		}
		if c.Kept.Blocks() {
			m.kept[c.ID] = c.Kept
		}
	}
	for _, id := range s.Former {
		m.former[id] = true
	}
	m.whole, m.zero, m.restored, m.fresh = s.Whole, s.Zero, s.Whole, s.Fresh
	for _, id := range s.Left {
		m.leftFormer[id] = true
	}
	if s.ZeroCheck != nil {
		m.zeroCheck = *s.ZeroCheck
	}
	m.reads, m.skips = s.Reads, s.Skips
	m.round.mark = s.Reads
}

// oneCopy returns the copy of a text that all share.
func oneCopy(names map[string]string, text string) string {
	if name, ok := names[text]; ok {
		return name
	}
	names[text] = text
	return text
}

// save writes the file if it is behind. After a crash at any moment it is the old or the new one, whole.
func (m *Memory) save(now time.Time) error {
	m.mu.Lock()
	if m.file.path == "" || len(m.sources) == 0 || !m.changed && now.Sub(m.savedAt) < saveUnchanged {
		m.mu.Unlock()
		return nil
	}
	body, err := json.Marshal(m.storedLocked())
	m.changed, m.savedAt = false, now
	m.mu.Unlock()
	if err == nil {
		err = statedir.Replace(m.file.path, 0o640, func(w io.Writer) error {
			return statedir.WriteSummed(w, answersMagic, answersVersion, body)
		})
	}
	if err == nil {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.changed = true
	return fmt.Errorf("store what the ERP said: %w", err)
}

func (m *Memory) storedLocked() *stored {
	s := &stored{ERP: m.file.erp, Devices: m.devices, Accepted: slices.Sorted(maps.Keys(m.accepted)), Reads: m.reads, Skips: m.skips, Left: slices.Sorted(maps.Keys(m.leftFormer)), Whole: m.whole, Zero: m.zero, Fresh: m.fresh, Customers: make([]storedCustomer, 0, len(m.customers))}
	if m.zeroCheck.Answer != "" {
		s.ZeroCheck = new(zeroCheck)
		*s.ZeroCheck = m.zeroCheck
	}
	for _, name := range syncer.SourceNames() {
		if st, ok := m.sources[name]; ok {
			s.Sources = append(s.Sources, st)
		}
	}
	for id, c := range m.customers {
		s.Customers = append(s.Customers, storedCustomer{
			ID: id, StateID: c.stateID, Read: c.read, Nets: m.nets[id], Kept: m.kept[id],
			Flags: [3]int{int(c.flags.Disabled), int(c.flags.Potential), int(c.flags.NotInBilling)},
		})
	}
	for id := range m.former {
		s.Former = append(s.Former, id)
	}
	return s
}
