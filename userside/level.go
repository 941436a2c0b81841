package userside

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"time"
)

// LevelSource says how the version of a server is known.
type LevelSource string

// The sources of a Level.
const (
	LevelSet     LevelSource = "set"     // Options.ERPVersion
	LevelSystem  LevelSource = "system"  // system get_system_info
	LevelModule  LevelSource = "module"  // module get_system_information
	LevelAssumed LevelSource = "assumed" // nobody told: the newest rules
)

// Level is the version of a server, which decides what exists and how it is named.
type Level struct {
	Version Version // zero: not known, the newest rules hold
	Source  LevelSource
	Text    string // what the server said about its version; may be empty
	Err     error  // why the version is not known; nil otherwise
}

// detectTimeout bounds each request of a detection, so that a server which only
// hangs there does not cost more than this.
const detectTimeout = 10 * time.Second

// How long a detection holds. One that failed because the server could not be
// asked is tried again soon; every other one holds until an answer does not fit,
// which an upgrade of the server could explain. A read that misfits again and
// again, because the server is as it is, raises the question each doubtAfter.
const (
	detectAgain = time.Minute
	doubtAfter  = 10 * time.Minute
)

// levelPatience is how long a call waits for a detection. One that was sent under a guess meanwhile and does not fit waits for
// its end, and is sent again.
const levelPatience = time.Second

// firstPatience is how long who needs the version waits for it: no detection takes longer.
const firstPatience = 3 * detectTimeout

// level is a Level with what only calls need.
type level struct {
	Level
	nameParameter string // by which cat=system answered; empty: not asked
	info          *SystemInfo
}

// levels remembers the level of the server.
type levels struct {
	mu      sync.Mutex    // guards the rest
	running chan struct{} // closed when the detection that runs ends; nil: none does
	known   *level
	expires time.Time // zero: not by itself
	at      time.Time
	misfits map[string]time.Time // when an answer to an action last raised the question
}

func (l *levels) get(now time.Time) *level {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil || !l.expires.IsZero() && !now.Before(l.expires) {
		return nil
	}
	return l.known
}

// last returns what is known, also if it is to be asked for again; nil: nothing is.
func (l *levels) last() *level {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known
}

// begin starts a detection unless one runs, and returns a channel that is closed at its end.
func (l *levels) begin(detect func()) <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running == nil {
		l.running = make(chan struct{})
		go func() {
			detect()
			l.mu.Lock()
			defer l.mu.Unlock()
			close(l.running)
			l.running = nil
		}()
	}
	return l.running
}

// put takes what a detection found. That the server could not be asked now says
// nothing against what it said before.
func (l *levels) put(lv level, now time.Time) level {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.at, l.expires = now, time.Time{}
	if errors.Is(lv.Err, ErrUnavailable) {
		l.expires = now.Add(detectAgain)
		if l.known != nil && l.known.Err == nil {
			return *l.known
		}
	}
	l.known = &lv
	return lv
}

// doubt ends what is known, if an answer to the action may do that now. A write
// always may: somebody waits for it.
func (l *levels) doubt(spec *Action, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	last, before := l.misfits[spec.Label()]
	if l.known == nil || now.Sub(l.at) < detectAgain || before && !spec.Write && now.Sub(last) < doubtAfter {
		return false
	}
	if l.misfits == nil {
		l.misfits = make(map[string]time.Time)
	}
	l.misfits[spec.Label()] = now
	l.expires = now
	return true
}

// misfits reports whether a server of another version than the one that was
// asked for could answer so.
func misfits(err error) bool {
	return errors.Is(err, ErrRefused) || errors.Is(err, ErrUnknownShape) || errors.Is(err, ErrNotFound)
}

// levelAgain asks for the version again because an answer to the action does not
// fit the one that it was asked for by. It reports whether another one is known now.
func (c *Client) levelAgain(ctx context.Context, spec *Action, was level) (level, bool) {
	if !c.opts.ERPVersion.IsZero() {
		return was, false
	}
	if now := c.levels.get(time.Now()); now != nil && now.differs(was) { // somebody was quicker
		return *now, true
	}
	if c.levels.last() == nil { // the first detection still runs: what was asked by was a guess
		now := c.levelWithin(ctx, firstPatience)
		return now, now.differs(was)
	}
	if !c.levels.doubt(spec, time.Now()) {
		return was, false
	}
	now := c.levelWithin(ctx, levelPatience)
	changed := now.differs(was)
	if changed {
		c.log.InfoContext(ctx, "the ERP has another version now", "was", was.Version.String(), "version", now.Version.String(), "source", string(now.Source))
	}
	return now, changed
}

// differs reports whether calls may be named otherwise by the two.
func (l level) differs(from level) bool {
	return l.Version != from.Version || l.nameParameter != from.nameParameter
}

// Level returns the version of the server, asking for it at most once: by system
// get_system_info under both names of the action parameter, then by module
// get_system_information. A server that does not tell is no error: the newest
// rules hold then. Options.ERPVersion makes it ask nobody.
func (c *Client) Level(ctx context.Context) Level { return c.levelWithin(ctx, firstPatience).Level }

// level is what calls go by. It waits for a detection for levelPatience at most,
// and not at all where the server told its version before: a call must not wait
// for an answer to something else. The detection goes on beside it.
func (c *Client) level(ctx context.Context) level { return c.levelWithin(ctx, 0) }

// levelFor is level, but under a guess no change is sent that would not be made again under the right names, nor a report,
// for which nobody waits: they wait for the first detection.
func (c *Client) levelFor(ctx context.Context, spec *Action) level {
	if spec.Write && (!spec.Idempotent || spec.lane(ctx) == LaneReport) && c.levels.last() == nil {
		return c.levelWithin(ctx, firstPatience)
	}
	return c.level(ctx)
}

// levelWithin waits for a detection that is due; 0: as level says.
func (c *Client) levelWithin(ctx context.Context, patience time.Duration) level {
	if v := c.opts.ERPVersion; !v.IsZero() {
		return level{Level: Level{Version: v, Source: LevelSet, Text: v.String()}}
	}
	if lv := c.levels.get(time.Now()); lv != nil {
		return *lv
	}
	if ctx.Err() != nil {
		return level{Level: Level{Source: LevelAssumed, Err: ctx.Err()}}
	}
	done := c.levels.begin(c.detectBeside)
	if patience == 0 {
		patience = levelPatience
		if last := c.levels.last(); last != nil {
			return *last
		}
	}
	waits := time.NewTimer(patience)
	defer waits.Stop()
	select {
	case <-done:
		if last := c.levels.last(); last != nil {
			return *last
		}
	case <-waits.C:
	case <-ctx.Done():
		return level{Level: Level{Source: LevelAssumed, Err: ctx.Err()}}
	}
	return c.knownLevel()
}

// detectBeside finds the version out. No call's end ends it, nor is an answer to it one to a call.
func (c *Client) detectBeside() {
	lv := c.levels.put(c.detect(WithLane(context.Background(), LaneUrgent)), time.Now()) // calls may wait for it
	c.log.Debug("erp version detected", "version", lv.Version.String(), "source", string(lv.Source))
}

// knownLevel is level without asking anybody.
func (c *Client) knownLevel() level {
	if v := c.opts.ERPVersion; !v.IsZero() {
		return level{Level: Level{Version: v, Source: LevelSet, Text: v.String()}}
	}
	if lv := c.levels.last(); lv != nil {
		return *lv
	}
	return level{Level: Level{Source: LevelAssumed}}
}

// detect asks the server for its version, each way once.
func (c *Client) detect(ctx context.Context) level {
	lv := level{Level: Level{Source: LevelAssumed}}
	names := []string{"action", "subcat"}
	if c.opts.ActionParameter != "" {
		names = []string{c.opts.ActionParameter}
	}
	for _, name := range names {
		info, err := c.askSystem(ctx, name)
		if err == nil {
			lv.nameParameter, lv.info, lv.Err = name, info, nil
			lv.Text = info.Version.Text()
			if lv.Version = findVersion(lv.Text); !lv.Version.IsZero() {
				lv.Source = LevelSystem
				return lv
			}
			break
		}
		if lv.Err == nil {
			lv.Err = err
		}
		if errors.Is(err, ErrUnavailable) || ctx.Err() != nil {
			lv.Err = err
			return lv
		}
		if errors.Is(err, ErrPermission) {
			break // the section is closed, whatever the parameter is called
		}
	}
	v, text, err := c.askModule(ctx)
	if err != nil || v.IsZero() {
		if lv.Err == nil && lv.info == nil {
			lv.Err = err
		}
		return lv
	}
	lv.Version, lv.Text, lv.Source, lv.Err = v, text, LevelModule, nil
	return lv
}

// once sends a call a single time.
func (c *Client) once(ctx context.Context, out *outgoing, to sink) (*answer, *failure) {
	defer c.pending.begin(ctx, out)()
	return c.gated(ctx, out, to)
}

// askSystem does one request of system get_system_info.
func (c *Client) askSystem(ctx context.Context, nameParameter string) (*SystemInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, detectTimeout)
	defer cancel()
	r := systemReader{found: map[string]String{}}
	a, f := c.once(ctx, &outgoing{spec: actSystemInfo.row(), nameParameter: nameParameter}, r.sink())
	if f != nil {
		return nil, &f.Error
	}
	info := r.info(a, c.opts.Location)
	if info == nil {
		return nil, c.unknownShape(actSystemInfo, a, "none of the known members")
	}
	return info, nil
}

// askModule does one request of module get_system_information, whose form is
// published nowhere: a version counts if its place says that it is the ERP's.
func (c *Client) askModule(ctx context.Context) (Version, string, error) {
	ctx, cancel := context.WithTimeout(ctx, detectTimeout)
	defer cancel()
	var found Version
	var text string
	take := func(v value) {
		if v.composite() {
			return
		}
		if got := findVersion(v.text()); found.IsZero() && got.Major >= firstMajor {
			found, text = got, v.text()
		}
	}
	to := sink{bare: true, member: func(key []byte, _ int, v value) {
		switch string(key) {
		case "erp_version", "userside_version", "version":
			take(v)
		case "erp", "userside", "system":
			take(v.first("erp_version", "version"))
		}
	}}
	out := &outgoing{spec: row("module", "get_system_information"), nameParameter: "request"}
	if _, f := c.once(ctx, out, to); f != nil {
		return Version{}, "", &f.Error
	}
	return found, text, nil
}

// firstMajor is the oldest generation that this contract knows; a lower number
// is the version of something else.
const firstMajor = 3

var versionText = regexp.MustCompile(`(?i)\d+\.\d+(\.\d+)?[ ._-]*((dev|beta|rc)[ ._-]*\d*)?`)

// findVersion reads the first version in a text such as "UserSide 3.19 beta 1"; zero when there is none.
func findVersion(s string) Version {
	found := strings.ToLower(versionText.FindString(s[:min(len(s), 256)]))
	i := strings.IndexAny(found, "drb")
	numbers, stage := found, ""
	if i >= 0 {
		numbers, stage = found[:i], found[i:]
	}
	clean := func(s string, also string) string {
		return strings.Trim(strings.NewReplacer(" ", "", "-", "", "_", "", also, "").Replace(s), ".")
	}
	v, err := ParseVersion(clean(numbers, " ") + clean(stage, "."))
	if err != nil {
		return Version{}
	}
	return v
}

// actionBorder is where customer actions stopped to be called subcat for sure.
// Newer servers took both names for years (API page section 1).
func actionBorder() Version { return Version{Major: 3, Minor: 17, Stage: StageRelease} }

// nameParameter returns the name of the parameter that carries the action: request
// in cat=module; in cat=customer of servers before 3.17 subcat; else what
// cat=system answered to, or action.
func (c *Client) nameParameter(spec *Action, lv level) string {
	switch {
	case spec.Category == "module":
		return "request"
	case c.opts.ActionParameter != "":
		return c.opts.ActionParameter
	case lv.nameParameter == "subcat":
		return "subcat"
	case spec.Category == "customer" && !lv.Version.IsZero() && lv.Version.Before(actionBorder()):
		return "subcat"
	}
	return "action"
}

// systemReader collects the members of get_system_info.
type systemReader struct{ found map[string]String }

func systemKeys() []string {
	return []string{"erp_version", "date_time_unix", "date_time_string", "os", "php_version"}
}

func (r systemReader) sink() sink {
	return sink{
		reset: func() { clear(r.found) },
		whole: func(v value) {
			for _, k := range systemKeys() {
				if s, err := v.get(k).string(); err == nil && s != "" {
					r.found[k] = s
				}
			}
		},
	}
}

// info returns nil when nothing was recognised.
func (r systemReader) info(a *answer, loc *time.Location) *SystemInfo {
	for _, k := range systemKeys() {
		if _, ok := r.found[k]; !ok {
			r.found[k] = a.scalar(k)
		}
	}
	info := &SystemInfo{Version: r.found["erp_version"], DateTime: r.found["date_time_string"], OS: r.found["os"], PHPVersion: r.found["php_version"]}
	if n, ok := parseInt([]byte(r.found["date_time_unix"])); ok && n > 0 {
		info.Time = time.Unix(n, 0).In(loc)
	}
	if *info == (SystemInfo{}) {
		return nil
	}
	return info
}
