package provision

// Op is what a change to the kernel does. Its zero value is invalid.
type Op uint8

// The operations.
const (
	OpAdd Op = iota + 1
	OpRemove
)

// String returns add, remove or invalid.
func (o Op) String() string {
	switch o {
	case OpAdd:
		return "add"
	case OpRemove:
		return "remove"
	}
	return "invalid"
}
