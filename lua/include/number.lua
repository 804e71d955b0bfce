-- number: a number that is stored as text, and `otherwise` when there is none or it is damage: no script may fail on
-- it, or wait for ever. Every number kept here counts ms or µs since 1970, or jobs: none reaches 9e15.
local function number(text, otherwise)
  local value = tonumber(text or '')
  if value and value >= 0 and value < 9e15 then
    return value
  end
  return otherwise
end
