-- note: adds one or two values to a list of `out`, by its name.
local function note(out, name, first, second)
  local list = out[name]
  if not list then
    list = {}
    out[name] = list
  end
  list[#list + 1] = first
  list[#list + 1] = second
end
